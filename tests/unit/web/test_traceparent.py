import pytest

from service.web.traceparent import parse_traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_version_00_is_taken_as_it_is():
    assert parse_traceparent(f"00-{TRACE}-{PARENT}-01") == f"00-{TRACE}-{PARENT}-01"


def test_a_later_version_is_read_as_far_as_we_know_it():
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
def test_anything_else_is_passed_over(header):
    assert parse_traceparent(header) is None
