"""The demo's closing table and its JSON report."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from service.demo.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Every figure measured: by the sandbox, the shop, or by comparing them with the ledger."""

    orders: int
    #: Withholds whose answer was lost. They are not sent again; the gateway is queried instead.
    withholds_unknown: int
    #: Orders for which the gateway sent no callback.
    never_called_back: int
    #: Those of them that an inquiry brought to their true terminal status, at the shop too.
    recovered_by_inquiry: int
    #: Queries to the gateway, for all orders.
    questions_asked: int
    callbacks_sent: int
    acknowledged: int
    #: True callbacks that were not acknowledged, and so were repeated.
    refused: int
    duplicates_sent: int
    #: The gateway's own callbacks that contradict its answers to queries.
    lies_sent: int
    #: Orders for which such a callback was believed.
    orders_with_believed_lie: int
    forged_sent: int
    forged_acknowledged: int
    forged_refused: int
    forged_believed: int
    #: Distinct events at the shop.
    events_delivered: int
    #: Deliveries of an event that the shop already had. They are allowed: the event's id identifies them.
    deliveries_repeated: int
    #: Deliveries with a wrong signature.
    deliveries_unsigned: int
    orders_missing: int
    #: Orders that the ledger does not hold to be settled.
    orders_still_open: int
    orders_with_wrong_final_status: int
    orders_with_more_than_one_terminal_event: int
    #: From the command's start to the table.
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the service has kept its promises."""
        return not any(getattr(self, name) for name, _ in _MUST_BE_ZERO)


def measure(
    evidence: Evidence, sandbox: Mapping[str, int], *, unknown: int, repeated: int, unsigned: int, seconds: float
) -> DemoReport:
    """The report of one run; `sandbox` holds the sandbox's own counts."""
    return DemoReport(
        orders=len(evidence.truths),
        withholds_unknown=unknown,
        never_called_back=len(evidence.orders_without_callback()),
        recovered_by_inquiry=len(evidence.recovered_orders()),
        questions_asked=evidence.count_inquiries(),
        callbacks_sent=sandbox["callbacks_sent"],
        acknowledged=sandbox["acknowledged"],
        refused=sandbox["refused"] + sandbox["unanswered"],
        duplicates_sent=sandbox["duplicates_sent"],
        lies_sent=sandbox["lies_sent"],
        orders_with_believed_lie=len(evidence.orders_believed_lied()),
        forged_sent=sandbox["forged_sent"],
        forged_acknowledged=sandbox["forged_acknowledged"],
        forged_refused=sandbox["forged_refused"],
        forged_believed=len(evidence.believed_forgeries()),
        events_delivered=len(evidence.events),
        deliveries_repeated=repeated,
        deliveries_unsigned=unsigned,
        orders_missing=len(evidence.missing_orders()),
        orders_still_open=len(evidence.open_orders()),
        orders_with_wrong_final_status=len(evidence.wrong_orders()),
        orders_with_more_than_one_terminal_event=len(evidence.orders_with_several_terminal_events()),
        seconds=round(seconds, 1),
    )


#: The blocks of the table. The first line of a block is a total, the others are parts of it.
_SEEN = (
    (
        ("orders", "withholds that the gateway accepted 代扣订单"),
        ("withholds_unknown", "  the answer was lost: not sent again; the gateway was queried"),
        ("never_called_back", "  no callback ever came 从未回调"),
        ("recovered_by_inquiry", "    of these, settled by querying the gateway 主动查询"),
    ),
    (
        ("callbacks_sent", "callbacks by the gateway 异步回调"),
        ("duplicates_sent", "  sent again although they had been acknowledged"),
        ("lies_sent", "  false: contradict its own answers to queries 虚假回调"),
        ("acknowledged", "  answered `success` once safely queued"),
        ("refused", "  answered otherwise or not at all, so sent again"),
    ),
    (
        ("forged_sent", "callbacks by somebody else, correctly signed 伪造回调"),
        ("forged_acknowledged", "  without an order's notify_url: recorded, answered `success`"),
        ("forged_refused", "  on a notify_url that is not the order's: refused"),
    ),
    (("questions_asked", "queries to the gateway 单笔查询"),),
    (("events_delivered", "signed events at the shop: one per real change of status"),),
)
_MUST_BE_ZERO = (
    ("forged_believed", "forgeries that changed an order or made an event"),
    ("orders_with_believed_lie", "orders for which a false callback of the gateway was believed"),
    ("orders_with_wrong_final_status", "orders where shop, ledger and gateway disagree 状态不一致"),
    ("orders_with_more_than_one_terminal_event", "orders with more than one terminal event at the shop 重复通知"),
    ("orders_missing", "orders without a terminal event at the shop 漏单"),
    ("orders_still_open", "orders that the service could not settle 未决订单"),
    ("deliveries_unsigned", "events at the shop with a wrong signature"),
)


def draw_table(report: DemoReport) -> Table:
    """The report for people."""
    table = Table(title=f"What happened in {report.seconds} s", title_justify="left", show_header=False)
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for block in _SEEN:
        for name, meaning in block:
            table.add_row(f"{getattr(report, name)}", meaning)
        table.add_section()
    for name, meaning in _MUST_BE_ZERO:
        count = getattr(report, name)
        table.add_row(f"[green]{count}[/]" if count == 0 else f"[bold red]{count}[/]", meaning)
    return table
