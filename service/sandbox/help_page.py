"""What the sandbox says of itself to whoever opens it in a browser."""

from service.sandbox.script import VOCABULARY

_HEAD = """\
payment-callbacks sandbox: a direct-debit gateway to test against. Nothing here moves money, all state is in memory.

POST /gateway         the gateway's one URL; methods: pre-tied-card, confirm-tied-card, single-withhold,
                      single-order-query
GET  /admin/report    counts: callbacks sent, acknowledged, refused, repeated, dropped, forged
GET  /admin/orders    every order with its true status
GET  /admin/bindings  the verification codes that were "sent to the card holder"
GET  /admin/forgeries what forgers have claimed
GET  /admin/lies      which of the gateway's own callbacks said the opposite of what a query answers
GET  /admin/rules     rules in force; POST {"pattern": "T-*", "words": ["fail", "lost"]} puts one before the others

What happens to an order is said in words. The first of these that says something decides:
  1. a rule whose pattern (* and ?) matches the order number
  2. words in the order number: T-0001-fail-slow
  3. the last two digits of the amount: 12.51, or 1251 in fen
  4. the shares in the sandbox's settings, drawn from its seed

word      amount  the order
"""


def help_text() -> str:
    """The help page, plain text."""
    rows = [f"{word.text:<9} …{word.amount_ending:<6} {word.meaning}" for word in VOCABULARY]
    return _HEAD + "\n".join(rows) + "\n"
