"""The demo's closing table and its JSON report."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from service.cli.demo_evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Every figure measured: by the sandbox, the shop, or by comparing them with the ledger."""

    orders: int
    #: Withholds whose answer was lost: never sent again; their callbacks tell.
    withholds_unknown: int
    callbacks_sent: int
    acknowledged: int
    #: True callbacks that were not acknowledged, and so were repeated.
    refused: int
    duplicates_sent: int
    forged_sent: int
    forged_acknowledged: int
    forged_believed: int
    #: Distinct events at the shop.
    events_delivered: int
    #: Deliveries of an event that the shop had: allowed on the wire, told apart by the event's id.
    deliveries_repeated: int
    #: Deliveries whose signature did not fit.
    deliveries_unsigned: int
    orders_missing: int
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
        callbacks_sent=sandbox["callbacks_sent"],
        acknowledged=sandbox["acknowledged"],
        refused=sandbox["refused"] + sandbox["unanswered"],
        duplicates_sent=sandbox["duplicates_sent"],
        forged_sent=sandbox["forged_sent"],
        forged_acknowledged=sandbox["forged_acknowledged"],
        forged_believed=len(evidence.believed_forgeries()),
        events_delivered=len(evidence.events),
        deliveries_repeated=repeated,
        deliveries_unsigned=unsigned,
        orders_missing=len(evidence.missing_orders()),
        orders_with_wrong_final_status=len(evidence.wrong_orders()),
        orders_with_more_than_one_terminal_event=len(evidence.orders_told_twice()),
        seconds=round(seconds, 1),
    )


_SEEN = (
    ("orders", "withholds that the gateway accepted 代扣订单"),
    ("withholds_unknown", "of them, their answer was lost: never sent again, the callback tells"),
    ("callbacks_sent", "true callbacks 异步回调, with their repetitions"),
    ("duplicates_sent", "of them, sent again although they had been acknowledged"),
    ("acknowledged", "of them, answered `success`: only after they were safely queued"),
    ("refused", "of them, answered otherwise or not at all, and so repeated by the gateway"),
    ("forged_sent", "callbacks by somebody else, each with a correct sign 签名正确的伪造回调"),
    ("forged_acknowledged", "of them, answered `success`"),
    ("events_delivered", "signed events at the shop: one per real change of status"),
)
_MUST_BE_ZERO = (
    ("forged_believed", "forgeries that changed an order or made an event"),
    ("orders_with_wrong_final_status", "orders where shop, ledger and gateway do not agree 最终状态不一致"),
    ("orders_with_more_than_one_terminal_event", "orders that the shop was told twice to be final 重复通知"),
    ("orders_missing", "orders of which the shop never heard the end 漏单"),
    ("deliveries_unsigned", "events at the shop whose signature did not fit"),
)


def draw_table(report: DemoReport) -> Table:
    """The report for people."""
    table = Table(title=f"What happened in {report.seconds} s", title_justify="left", show_header=False)
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for name, meaning in _SEEN:
        table.add_row(f"{getattr(report, name)}", meaning)
    table.add_section()
    for name, meaning in _MUST_BE_ZERO:
        count = getattr(report, name)
        table.add_row(f"[green]{count}[/]" if count == 0 else f"[bold red]{count}[/]", meaning)
    return table
