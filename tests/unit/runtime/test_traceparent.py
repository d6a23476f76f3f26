import pytest

from service.runtime.traceparent import new_traceparent, parse_traceparent, trace_id_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_version_00_is_taken_as_it_is() -> None:
    assert parse_traceparent(f"00-{TRACE}-{PARENT}-01") == f"00-{TRACE}-{PARENT}-01"


def test_a_later_version_is_read_as_far_as_we_know_it() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{PARENT}-01-what-comes-then") == f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01.x",
    ],
)
def test_anything_else_is_passed_over(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_new_one_is_well_formed_and_of_a_trace_of_its_own() -> None:
    one, other = new_traceparent(), new_traceparent()
    assert parse_traceparent(one) == one
    assert trace_id_of(one) != trace_id_of(other)


def test_the_trace_id_is_what_joins_the_log() -> None:
    assert trace_id_of(f"00-{TRACE}-{PARENT}-01") == TRACE


@pytest.mark.parametrize("header", [None, "", "00-what-ever-01"])
def test_a_malformed_header_has_no_trace_id(header: str | None) -> None:
    assert trace_id_of(header) is None
