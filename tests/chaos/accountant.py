"""The accountant: compares what was sent and taken with what each downstream system got, by journals alone.

It shares no code with the service, nor with the sender: it has a sign, a token check, a parser and rules of its own. It
uses nothing but Python's library. `python -I -S accountant.py FOLDER` prints its report as JSON. It reads in FOLDER:

- `terms.json`: the merchants (`token_keys` by kid, and the `trust` that each requires), the endpoints (`kind`, and the
  `secret` of a webhook), and the `acknowledgement`;
- `sent.jsonl`: a line for each request of the sender: when it began (`at`, Unix seconds), how long it took (`seconds`),
  its `path` and `body`, and the `status` and `answer` that it got (status 0: none). The last line is `{"end": true}`;
- `withheld.jsonl`: a line for each withhold that the API was requested to send: `at`, `seconds`, `merchant`,
  `biz_order_no`, the `status` that it got, and the `outcome` in the answer. The last line is `{"end": true}`;
- `gateway.jsonl`: a line for each withhold that has reached the gateway: `at`, `merchant`, `biz_order_no`,
  `pay_order_no`, and the `pay_status` that the order ends with;
- `restarts.jsonl`: a line for each time in which nothing happened but that roles were ended and started in good order:
  `from` and `to`;
- `events-NAME.jsonl`, for each endpoint: a line for each event that it got, before it accepted it: `at`, `body`, and
  the `headers` of a webhook.
"""

import base64
import hashlib
import hmac
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: Each has to be found 0 times.
FAULTS = (
    *("lost", "twice", "wrong_end", "regression", "gap", "tampered_accepted", "unsigned"),
    *("sent_twice", "refused_by_restart"),
)
_STATUS_OF = {"pending": "processing", "wait_pay": "processing", "success": "succeeded", "fail": "failed"}
_RANK = {"processing": 1, "succeeded": 2, "failed": 2}
_TRUSTS = ("checksum", "rule", "capability", "query", "operator")
_WEBHOOK_TOLERANCE_SECONDS = 300


@dataclass
class Report:
    """What was counted. `examples` has the first few of each fault, in words."""

    lost: int = 0
    twice: int = 0
    wrong_end: int = 0
    regression: int = 0
    gap: int = 0
    tampered_accepted: int = 0
    unsigned: int = 0
    #: A withhold that reached the gateway more than once, or that was said not to be done after it had reached it.
    sent_twice: int = 0
    #: An answer of 500 or more while nothing but a restart in good order was going on.
    refused_by_restart: int = 0
    #: Callbacks, each counted once however often it was sent.
    callbacks: int = 0
    taken: int = 0
    tampered: int = 0
    #: Requests: callbacks as often as they were sent.
    requests: int = 0
    #: Of these, those that began and ended during a restart in good order.
    during_restarts: int = 0
    refused: int = 0
    unanswered: int = 0
    #: Orders that the API was requested to send, and those of them that reached the gateway.
    withholds: int = 0
    charged: int = 0
    #: Per endpoint.
    events: dict[str, int] = field(default_factory=dict)
    delivered_again: dict[str, int] = field(default_factory=dict)
    slowest_answer_seconds: float = 0.0
    #: The longest time without an acknowledgement in which a true callback failed.
    longest_outage_seconds: float = 0.0
    #: From the last acknowledgement to the last new event at any endpoint; 0 if that came first.
    seconds_to_quiet: float = 0.0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in FAULTS)

    def add(self, fault: str, example: str) -> None:
        """Count one."""
        setattr(self, fault, getattr(self, fault) + 1)
        self.examples.setdefault(fault, [])
        if len(self.examples[fault]) < 5:
            self.examples[fault].append(example)


@dataclass
class Order:
    """What the sender has said of an order, in pairs of status and payment number."""

    #: By callbacks with a right sign and token.
    stated: set[tuple[str, str]] = field(default_factory=set)
    #: Those of them that were taken.
    taken: set[tuple[str, str]] = field(default_factory=set)
    #: By callbacks with a wrong sign or token; if the merchant requires `query`, by any.
    unproven: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Event:
    """One event, as an endpoint got it."""

    id: str
    type: str
    sequence: int
    status: str
    payment: str
    trust: str
    body: str


def audit(folder: Path) -> Report:
    """Read the journals in `folder` and count."""
    terms = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
    report = Report()
    orders: dict[tuple[str, str], Order] = defaultdict(Order)
    sent, withheld = _finished(folder / "sent.jsonl"), _finished(folder / "withheld.jsonl")
    last_taken_at = _read_sent(sent, terms, orders, report)
    charged = _read_charged(list(_lines(folder / "gateway.jsonl")), withheld, report)
    # A withhold that is not done because too many are under way at once is no fault of a restart.
    requests = [*sent, *(line for line in withheld if line["outcome"] != "not-done")]
    _read_restarts(list(_lines(folder / "restarts.jsonl")), requests, report)
    for name, endpoint in terms["endpoints"].items():
        arrivals, last_new_at = _read_events(list(_lines(folder / f"events-{name}.jsonl")), name, endpoint, report)
        report.seconds_to_quiet = max(report.seconds_to_quiet, last_new_at - last_taken_at)
        for key in sorted({*orders, *charged, *arrivals}):
            trust = terms["merchants"].get(key[0], {"trust": "operator"})["trust"]
            expected, possible = _find_truth(orders[key], charged.get(key), trust)
            events = arrivals.get(key, [])
            _judge(f"{name}: {'/'.join(key)}", events, orders[key], expected, possible, trust, report)
    return report


def _lines(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n")[:-1], start=1):  # a line without its end was cut off by a kill
        try:
            yield json.loads(line)
        except ValueError as error:
            raise SystemExit(f"{path}, line {number}: no JSON: {error}") from error


def _finished(path: Path) -> Sequence[Any]:
    lines = list(_lines(path))
    if not lines or lines[-1] != {"end": True}:
        raise SystemExit(f"{path.name}: the sender has not written its last line, so the journal is not whole")
    return lines[:-1]


def _read_charged(
    lines: Sequence[Any], withheld: Sequence[Any], report: Report
) -> dict[tuple[str, str], tuple[str, str]]:
    """How each order that reached the gateway ends there: its status and payment number."""
    reached_at: dict[tuple[str, str], float] = {}
    charged = {}
    for line in lines:
        key = line["merchant"], line["biz_order_no"]
        if key in charged:
            report.add("sent_twice", f"it reached the gateway again: {line}")
        charged[key] = _STATUS_OF[line["pay_status"]], line["pay_order_no"]
        reached_at.setdefault(key, line["at"])
    requested = set()
    for line in withheld:
        key = line["merchant"], line["biz_order_no"]
        requested.add(key)
        if line["outcome"] == "accepted" and key not in charged:
            report.add("lost", f"accepted, and it never reached the gateway: {line}")
        if line["outcome"] == "not-done" and reached_at.get(key, line["at"]) < line["at"]:
            report.add("sent_twice", f"surely not done, and it had reached the gateway at {reached_at[key]}: {line}")
    for key in set(charged) - requested:
        report.add("wrong_end", f"it reached the gateway, and nobody requested it: {key}")
    report.withholds, report.charged = len(requested), len(charged)
    return charged


def _read_restarts(restarts: Sequence[Any], requests: Sequence[Any], report: Report) -> None:
    for line in requests:
        ended_at = line["at"] + line["seconds"]
        if any(restart["from"] <= line["at"] and ended_at <= restart["to"] for restart in restarts):
            report.during_restarts += 1
            if line["status"] >= 500:
                report.add("refused_by_restart", f"answered {line['status']}: {line}")


def _read_sent(
    lines: Sequence[Any], terms: Mapping[str, Any], orders: dict[tuple[str, str], Order], report: Report
) -> float:
    """Sort the callbacks into true and false ones; say when the last was taken."""
    callbacks: set[tuple[str, str]] = set()
    taken: set[tuple[str, str]] = set()
    tampered: set[tuple[str, str]] = set()
    last_taken_at, failed_from = 0.0, 0.0
    for line in sorted(lines, key=lambda line: line["at"] + line["seconds"]):
        callback = line["path"], line["body"]
        slug = line["path"].split("/")[2]
        merchant = terms["merchants"][slug]
        fields = json.loads(line["body"])
        order = orders[slug, fields["biz_order_no"]]
        said = _STATUS_OF[fields["pay_status"]], fields["pay_order_no"]
        acknowledged = line["status"] == 200 and line["answer"] == terms["acknowledgement"]
        answered_at = line["at"] + line["seconds"]
        callbacks.add(callback)
        report.requests += 1
        report.unanswered += not line["status"]
        report.refused += bool(line["status"]) and not acknowledged
        if line["status"]:
            report.slowest_answer_seconds = max(report.slowest_answer_seconds, line["seconds"])
        falsehood = find_falsehood(line["path"], fields, merchant)
        if falsehood or merchant["trust"] == "query":
            order.unproven.add(said)
        if falsehood:
            tampered.add(callback)
            # If the gateway is asked, anybody's callback may be taken: it is a reason to ask.
            if acknowledged and not (falsehood == "no token" and merchant["trust"] == "query"):
                report.add("tampered_accepted", f"{falsehood}, and acknowledged: {line['path']} {line['body']}")
            continue
        order.stated.add(said)
        if not acknowledged:
            failed_from = min(failed_from or line["at"], line["at"])
            continue
        order.taken.add(said)
        taken.add(callback)
        if failed_from:
            outage = answered_at - max(failed_from, last_taken_at)
            report.longest_outage_seconds = max(report.longest_outage_seconds, outage)
        last_taken_at, failed_from = answered_at, 0.0
    report.callbacks, report.taken, report.tampered = len(callbacks), len(taken), len(tampered)
    return last_taken_at


def find_falsehood(path: str, fields: Mapping[str, str], merchant: Mapping[str, Any]) -> str:
    """What is wrong with a callback; "" where it is true."""
    unsigned = {name: fields[name] for name in sorted(fields) if name != "sign"}
    # The gateway's document, section 5: md5 over the other fields, sorted by name, as PHP's json_encode writes them.
    text = json.dumps(unsigned, separators=(",", ":")).replace("/", "\\/")
    if hashlib.md5(text.encode()).hexdigest() != fields["sign"]:
        return "wrong sign"
    _, _, slug, *token = path.split("/")
    if not token:
        return "no token"
    kid, _, rest = token[0].partition(".")
    number, _, proof = rest.partition(".")
    key = merchant["token_keys"].get(kid, "")
    signed = f"v1\n{slug}\n{fields['biz_order_no']}".encode()
    mac = hmac.new(key.encode(), signed, hashlib.sha256).digest()
    if not key or number != _base64url(fields["biz_order_no"].encode()) or proof != _base64url(mac):
        return "wrong token"
    return ""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read_events(
    lines: Sequence[Any], name: str, endpoint: Mapping[str, Any], report: Report
) -> tuple[dict[tuple[str, str], list[Event]], float]:
    """The events of each order in the order of their first arrival, and when the last new one came."""
    first: dict[str, Event] = {}
    arrivals: dict[tuple[str, str], list[Event]] = defaultdict(list)
    last_new_at = 0.0
    report.delivered_again[name] = 0
    for line in lines:
        if endpoint["kind"] == "webhook" and (fault := _find_bad_signature(line, endpoint["secret"])):
            report.add("unsigned", f"{name}: {fault}: {line['headers']} {line['body']}")
            continue
        envelope = json.loads(line["body"])
        data = envelope["data"]
        key = data["merchant"], data["biz_order_no"]
        named = f"{key[0]}/{quote(key[1], safe='')}/{data['sequence']}"
        if (envelope["id"], envelope["source"], envelope["subject"]) != (named, f"/merchants/{key[0]}", key[1]):
            report.add("wrong_end", f"{name}: an event that contradicts itself: {line['body']}")
            continue
        known = first.get(envelope["id"])
        if known is None:
            event = Event(
                id=envelope["id"],
                type=envelope["type"],
                sequence=data["sequence"],
                status=data["status"],
                payment=data["pay_order_no"],
                trust=data["trust"],
                body=line["body"],
            )
            first[event.id] = event
            arrivals[key].append(event)
            last_new_at = max(last_new_at, line["at"])
        elif known.body != line["body"]:
            report.add("twice", f"{name}: two contents of {known.id}: {known.body} and {line['body']}")
        else:
            report.delivered_again[name] += 1
    report.events[name] = len(first)
    return arrivals, last_new_at


def _find_bad_signature(line: Mapping[str, Any], secret: str) -> str:
    """What is wrong with a webhook's signature (https://www.standardwebhooks.com); "" where it is right."""
    headers = {name.lower(): value for name, value in line["headers"].items()}
    event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if event_id != json.loads(line["body"]).get("id"):
        return "webhook-id is not the id of the event"
    if not timestamp.isdecimal() or abs(line["at"] - int(timestamp)) > _WEBHOOK_TOLERANCE_SECONDS:
        return "webhook-timestamp is not the time"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event_id}.{timestamp}.{line['body']}".encode()
    right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return "" if right in headers.get("webhook-signature", "").split(" ") else "no signature fits"


def _find_truth(order: Order, charged: tuple[str, str] | None, trust: str) -> tuple[str | None, set[tuple[str, str]]]:
    """The status that has to arrive (None: none has to), and the pairs of status and payment number that may."""
    if trust == "query":  # only the gateway is believed; an order that it does not have is somebody's invention
        return (None, set()) if charged is None else (charged[0], {charged, ("processing", charged[1])})
    if len({payment for _, payment in order.stated}) > 1 or {"succeeded", "failed"} <= {end for end, _ in order.stated}:
        raise SystemExit(f"the sender's plan is wrong: true callbacks of one order contradict each other: {order}")
    return max((status for status, _ in order.taken), key=_RANK.__getitem__, default=None), order.stated


def _judge(
    where: str,
    events: Sequence[Event],
    order: Order,
    expected: str | None,
    possible: set[tuple[str, str]],
    trust: str,
    report: Report,
) -> None:
    """Compare an order's events at one endpoint, by first arrival, with what has to be, and with what may be."""
    came = [f"{event.sequence} {event.type} {event.payment}" for event in events]
    if expected is not None and expected not in {event.status for event in events}:
        report.add("lost", f"{where}: has to be {expected}, and these came: {came}")
    for event in events:
        said = event.status, event.payment
        proven = event.trust in _TRUSTS[_TRUSTS.index(trust) :]
        if said in possible and proven and event.type == f"payment.{event.status}":
            continue
        believed = said in order.unproven or not possible or not proven
        fault = "tampered_accepted" if believed else "wrong_end"
        report.add(fault, f"{where}: {event.id} is {event.type} {said} {event.trust}, possible: {sorted(possible)}")
    if len({event.status for event in events}) < len(events):
        report.add("twice", f"{where}: one change came as two events: {came}")
    sequences = [event.sequence for event in events]
    ranks = [_RANK.get(event.status, 0) for event in sorted(events, key=lambda event: event.sequence)]
    if sequences != sorted(sequences) or ranks != sorted(ranks):
        report.add("regression", f"{where}: they came in this order: {came}")
    if missing := set(range(1, max(sequences, default=0))) - set(sequences):
        report.add("gap", f"{where}: {sorted(missing)} never came: {came}")


def main() -> None:
    """Print the report. Exit status 1 where a fault was found."""
    report = audit(Path(sys.argv[1]))
    print(json.dumps({**asdict(report), "faults": report.faults}, ensure_ascii=False))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
