"""The demo's closing table and its JSON report."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from service.demo.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Every figure measured: by the sandbox, the shop, or by comparing them with the ledger."""

    orders: int
    #: Withholds whose answer was lost: never sent again; the gateway is asked what became of them.
    withholds_unknown: int
    #: Orders of which no callback of the gateway's ever came in.
    never_called_back: int
    #: Of these, those that came to their true end by asking, and that the shop was told of.
    recovered_by_inquiry: int
    #: Questions to the gateway, about all orders.
    questions_asked: int
    callbacks_sent: int
    acknowledged: int
    #: True callbacks that were not acknowledged, and so were repeated.
    refused: int
    duplicates_sent: int
    #: The gateway's own callbacks that say the opposite of what it answers when asked.
    lies_sent: int
    #: Orders of which such a callback was believed.
    orders_with_believed_lie: int
    forged_sent: int
    forged_acknowledged: int
    forged_refused: int
    forged_believed: int
    #: Distinct events at the shop.
    events_delivered: int
    #: Deliveries of an event that the shop had: allowed on the wire, told apart by the event's id.
    deliveries_repeated: int
    #: Deliveries whose signature did not fit.
    deliveries_unsigned: int
    orders_missing: int
    #: Orders that the ledger itself does not hold to be at an undisputed end.
    orders_still_open: int
    orders_with_wrong_final_status: int
    orders_with_more_than_one_terminal_event: int
    #: From the command's start to the table.
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the service has kept what it promises."""
        return not any(getattr(self, name) for name, _ in _MUST_BE_ZERO)


def measure(
    evidence: Evidence, sandbox: Mapping[str, int], *, unknown: int, repeated: int, unsigned: int, seconds: float
) -> DemoReport:
    """The report of one run; `sandbox` holds the sandbox's own counts."""
    return DemoReport(
        orders=len(evidence.truths),
        withholds_unknown=unknown,
        never_called_back=len(evidence.silent_orders()),
        recovered_by_inquiry=len(evidence.recovered_orders()),
        questions_asked=evidence.questions(),
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
        orders_with_more_than_one_terminal_event=len(evidence.orders_told_twice()),
        seconds=round(seconds, 1),
    )


#: What each block of the table shows; every line after a block's first is a part of the first.
_SEEN = (
    (
        ("orders", "withholds that the gateway accepted 代扣订单"),
        ("withholds_unknown", "  the answer was lost: not sent again, but asked for"),
        ("never_called_back", "  no callback ever came 从未回调"),
        ("recovered_by_inquiry", "    of these, brought to their true end by asking 主动查询"),
    ),
    (
        ("callbacks_sent", "callbacks by the gateway 异步回调"),
        ("duplicates_sent", "  sent again although they had been acknowledged"),
        ("lies_sent", "  lies: the opposite of what it answers when asked 虚假回调"),
        ("acknowledged", "  answered `success`, once they were safely queued"),
        ("refused", "  answered otherwise or not at all, and so repeated"),
    ),
    (
        ("forged_sent", "callbacks by somebody else, correctly signed 伪造回调"),
        ("forged_acknowledged", "  on no order's notify_url: recorded, answered `success`"),
        ("forged_refused", "  on a notify_url that is not the order's: refused"),
    ),
    (("questions_asked", "questions to the gateway 单笔查询"),),
    (("events_delivered", "signed events at the shop: one per real change of status"),),
)
_MUST_BE_ZERO = (
    ("forged_believed", "forgeries that changed an order or made an event"),
    ("orders_with_believed_lie", "orders of which a lying callback was believed"),
    ("orders_with_wrong_final_status", "orders where shop, ledger and gateway disagree 状态不一致"),
    ("orders_with_more_than_one_terminal_event", "orders that the shop was told twice to be final 重复通知"),
    ("orders_missing", "orders of which the shop never heard the end 漏单"),
    ("orders_still_open", "orders whose end the service itself does not know 未决订单"),
    ("deliveries_unsigned", "events at the shop whose signature did not fit"),
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
