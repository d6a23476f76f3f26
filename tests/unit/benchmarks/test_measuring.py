"""What the benchmarks make of what they have counted."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.callbacks import CallbackFile, Sent, check_queued
from tests.benchmarks.measuring import Findings, Ratio, Spread, percentile, ratios_of, take_turns
from tests.benchmarks.report import BY_HAND, line, read_raw, write_page, write_raw

ORDERS = [f"order-{number}" for number in range(10)]
CALLBACKS = CallbackFile(path=Path("callbacks.txt"), order_numbers=ORDERS)


def sent(acknowledged: int, *, refused: int = 0, unanswered: int = 0) -> Sent:
    return Sent(
        acknowledged=acknowledged,
        refused=refused,
        unanswered=unanswered,
        began_at=0,
        seconds=1,
        p50_ms=1,
        p99_ms=1,
        longest_ms=1,
    )


def test_what_was_acknowledged_and_is_in_the_queue_once_passes() -> None:
    check_queued(ORDERS, sent(10), CALLBACKS, name="it")


def test_what_nobody_has_promised_may_be_in_the_queue_or_not() -> None:
    for queued in (ORDERS[:8], ORDERS[:9], ORDERS):
        check_queued(queued, sent(8, refused=1, unanswered=1), CALLBACKS, name="it")


def test_a_callback_that_was_acknowledged_and_lost_fails() -> None:
    with pytest.raises(AssertionError, match="10 acknowledged"):
        check_queued(ORDERS[:9], sent(10), CALLBACKS, name="it")


def test_a_callback_in_place_of_another_fails() -> None:
    with pytest.raises(AssertionError, match="more than 1 times"):
        check_queued([*ORDERS[:9], ORDERS[0]], sent(10), CALLBACKS, name="it")


def test_a_file_that_was_sent_twice_may_be_queued_twice_and_not_more_often() -> None:
    check_queued(ORDERS * 2, sent(20), CALLBACKS, name="it")
    with pytest.raises(AssertionError, match="more than 2 times"):
        check_queued([*ORDERS[1:] * 2, ORDERS[1], ORDERS[0]], sent(20), CALLBACKS, name="it")


def test_a_ratio_is_taken_in_each_round_and_not_between_medians() -> None:
    figures = {"ours": [{"per s": 10.0}, {"per s": 90.0}], "theirs": [{"per s": 5.0}, {"per s": 30.0}]}
    assert ratios_of(figures, "per s", ours="ours", theirs="theirs") == [2.0, 3.0]


def test_each_round_begins_with_another_contestant() -> None:
    order: list[str] = []

    def turn(name: str) -> dict[str, float]:
        order.append(name)
        return {"per s": 1.0}

    take_turns({"a": lambda: turn("a"), "b": lambda: turn("b")}, rounds=3, console=Console(quiet=True))
    assert "".join(order) == "abbaab"


def test_quartiles_of_one_round_are_its_figure() -> None:
    assert Spread.of([3.0]) == Spread(median=3.0, lower=3.0, upper=3.0)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(median=3.0, lower=2.0, upper=4.0)


def test_a_percentile_is_a_figure_that_was_measured() -> None:
    figures = [float(number) for number in range(1, 101)]
    assert [percentile(figures, percent) for percent in (50, 99, 100)] == [50.0, 99.0, 100.0]


def test_a_line_says_whether_a_ratio_is_as_it_should_be() -> None:
    assert line(Ratio(name="speed", per_round=[1.0, 2.0, 3.0], at_least=1.5, aim=3)) == (
        "speed: 2.00 (1.50 to 2.50); at least 1.50, aim 3.00"
    )
    assert line(Ratio(name="memory", per_round=[1.1], at_most=1.05)).endswith("at most 1.05 NOT MET")


def test_a_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    findings = [Findings(title="Speed", method="With a watch.", figures={"ours": [{"per s": 5.0}]})]

    def write() -> str:
        write_page(page, findings, command="bench")
        return page.read_text()

    first = write()
    assert "| ours | 5.00 |" in first
    by_hand = f"{BY_HAND[0]}\nThe disk\nstands in the way.\n{BY_HAND[1]}"
    page.write_text(first.replace(f"{BY_HAND[0]}\n\n{BY_HAND[1]}", by_hand))
    assert by_hand in write()


def test_figures_that_were_written_are_read_as_they_were(tmp_path: Path) -> None:
    ratios = [Ratio(name="claims/s: ours / theirs", per_round=[2.0, 4.0], at_least=3.0)]
    figures = {"ours": [{"claims/s": 200.0}, {"claims/s": 400.0}]}
    findings = [
        Findings(title="Ledgers", method="One after the other.", figures=figures, ratios=ratios, measured="Now.")
    ]
    file = tmp_path / "figures.json"
    assert read_raw(file) == []
    write_raw(file, findings)
    assert read_raw(file) == findings
