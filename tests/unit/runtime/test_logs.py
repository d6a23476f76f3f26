import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from service.runtime.log_stream import LineCounts
from service.runtime.logs import Logger, OrderNumberMask, configure_logs


@pytest.fixture
def lines() -> Iterator[Any]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def test_a_line_is_one_json_object_with_an_iso_time_in_utc(lines: Any) -> None:
    configure_logs(stream=lines, human=False)
    Logger(__name__).info("callback_refused", reason="未知")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["reason"]) == ("callback_refused", "info", "未知")
    assert line["timestamp"].endswith("Z")


def test_bound_fields_are_on_every_line(lines: Any) -> None:
    configure_logs(stream=lines, human=False)
    log = Logger(__name__).bind(endpoint="shop", attempt=0)
    log.info("sent", attempt=1)
    log.info("answered")
    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(line["event"], line["endpoint"], line["attempt"]) for line in written] == [
        ("sent", "shop", 1),
        ("answered", "shop", 0),
    ]


def test_libraries_that_use_logging_write_the_same_lines(lines: Any) -> None:
    configure_logs(stream=lines, human=False)
    logging.getLogger("gunicorn.error").info("Listening at: %s", "here")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("Listening at: here", "gunicorn.error", "info")


@pytest.mark.parametrize("field", ["args", "key", "token", "id_card_number", "bank_card_number", "mobile", "name"])
@pytest.mark.parametrize("human", [False, True])
def test_sensitive_fields_are_masked_at_any_depth(lines: Any, field: str, human: bool) -> None:
    configure_logs(stream=lines, human=human)
    Logger(__name__).info("x", **{field: "6222021234561234"}, request={"inner": {field: "6222021234561234"}})
    assert "6222021234561234" not in lines.getvalue()
    assert "…" in lines.getvalue()


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"biz_order_no": "4111111111111111"}, "4111****1111"),
        ({"pay_order_no": "4111111111111111"}, "4111****1111"),
        ({"event_id": "acme/4111111111111111/1"}, "acme/4111****1111/1"),
        ({"biz_order_no": "1745678901234567897"}, "1745678901234567897"),
        ({"biz_order_no": "4222222222222220"}, "4222****2220"),
        ({"biz_order_no": "4222222222222220", "merchant": "acme"}, "4222222222222220"),
        ({"event_id": "acme/4222222222222220/1"}, "acme/4222222222222220/1"),
        ({"biz_order_no": "4111111111111111", "merchant": "acme"}, "4111****1111"),
    ],
)
def test_an_order_number_is_masked_only_if_it_may_be_a_card_number(
    lines: Any, fields: dict[str, str], shown: str
) -> None:
    order_numbers = OrderNumberMask()
    configure_logs(stream=lines, human=False, order_numbers=order_numbers)
    order_numbers.show({"acme": re.compile(r"42\d{14}")})
    Logger(__name__).info("x", **fields)
    assert shown in json.loads(lines.getvalue()).values()


@pytest.mark.parametrize("human", [False, True])
def test_a_traceback_shows_no_local_variables(lines: Any, human: bool) -> None:
    configure_logs(stream=lines, human=human)

    def fail() -> None:
        card = "62220212" + "34561234"
        raise ValueError(len(card))

    try:
        fail()
    except ValueError:
        Logger(__name__).exception("failed")
        logging.getLogger("library").exception("failed there too")
    assert lines.getvalue().count("ValueError: 16") == 2
    assert "6222021234561234" not in lines.getvalue()


def test_human_lines_are_not_json(lines: Any) -> None:
    configure_logs(stream=lines, human=True)
    Logger(__name__).warning("sign_dialect_changed", merchant="m1")
    assert "sign_dialect_changed" in lines.getvalue()
    assert "{" not in lines.getvalue()


@pytest.mark.parametrize(
    ("library", "level"), [("pika.adapters", logging.ERROR), ("alembic.runtime.migration", logging.INFO)]
)
def test_what_libraries_log_beside_our_own_lines_is_left_out(lines: Any, library: str, level: int) -> None:
    configure_logs(stream=lines, human=False)
    logging.getLogger(library).log(level, "connecting")
    assert lines.getvalue() == ""


class _Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def _endless() -> dict[str, object]:
    value: dict[str, object] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize("value", [_Unspeakable(), _endless(), {("a", "b"): 1}], ids=["repr", "endless", "key"])
def test_a_value_that_cannot_be_rendered_costs_the_line_its_fields_and_is_counted(lines: Any, value: Any) -> None:
    counts = LineCounts()
    configure_logs(stream=lines, human=False, counts=counts)
    Logger(__name__).info("happened", value=value)
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"]) == ("happened", "info")
    assert line["unrenderable"]
    assert counts.lost()["unrenderable"] == 1


def test_a_library_whose_arguments_do_not_fit_its_text_is_counted_likewise(lines: Any) -> None:
    counts = LineCounts()
    configure_logs(stream=lines, human=False, counts=counts)
    logging.getLogger("library").warning("so many: %d", "none")
    assert json.loads(lines.getvalue())["event"] == "so many: %d"
    assert counts.lost()["unrenderable"] == 1


def test_an_object_that_is_logged_in_place_of_a_text_is_counted_likewise(lines: Any) -> None:
    counts = LineCounts()
    configure_logs(stream=lines, human=False, counts=counts)
    unspeakable: Any = _Unspeakable()
    logging.getLogger("library").warning(unspeakable)
    Logger(__name__).info(unspeakable)
    assert [json.loads(line)["event"] for line in lines.getvalue().splitlines()] == ["_Unspeakable"] * 2
    assert counts.lost()["unrenderable"] == 2


@pytest.mark.parametrize("path", ["/dev/full", ""], ids=["full", "closed"])
def test_a_stream_that_cannot_be_written_raises_nothing(lines: Any, path: str) -> None:
    counts = LineCounts()
    stream = open(path or "/dev/null", "w")  # noqa: SIM115
    if not path:
        stream.close()
    configure_logs(stream=stream, human=False, counts=counts)
    Logger(__name__).info("x")
    logging.getLogger("library").warning("y")
    assert counts.lost()["unwritable"] == 2
    with suppress(OSError):
        stream.close()


_UNCAUGHT = """
import gc, sys, threading, warnings
from service.runtime.logs import configure_logs, log_uncaught_errors
configure_logs(stream=sys.stdout, human=False)
log_uncaught_errors()
def fail():
    raise ValueError("nobody catches it")
thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
class Finalized:
    def __del__(self):
        fail()
Finalized()
warnings.warn("be warned")
fail()
"""


def test_an_uncaught_error_is_a_log_line_and_not_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", _UNCAUGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    logged = [json.loads(line) for line in done.stdout.splitlines()]
    thread, finalizer, main = (line["where"] for line in logged if line["event"] == "error_uncaught")
    assert (thread, main) == ("thread worker", "main thread")
    assert re.fullmatch(r"finalizer .*\bFinalized\.__del__\b.*", finalizer)
    assert all("nobody catches it" in line["exception"] for line in logged if line["event"] == "error_uncaught")
    assert any("be warned" in line["event"] for line in logged)
