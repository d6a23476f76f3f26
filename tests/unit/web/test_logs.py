import io
import json
import logging

import pytest
import structlog

from service.logs import configure_logs


@pytest.fixture
def lines():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:], root.level = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_an_iso_time_in_utc(lines):
    configure_logs(stream=lines, human=False)
    structlog.get_logger().info("callback_refused", reason="未知")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["reason"]) == ("callback_refused", "info", "未知")
    assert line["timestamp"].endswith("Z")


def test_libraries_that_use_logging_write_the_same_lines(lines):
    configure_logs(stream=lines, human=False)
    logging.getLogger("gunicorn.error").info("Listening at: %s", "here")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("Listening at: here", "gunicorn.error", "info")


@pytest.mark.parametrize("field", ["args", "key", "token", "id_card_number", "bank_card_number", "mobile", "name"])
@pytest.mark.parametrize("human", [False, True])
def test_sensitive_fields_are_masked_at_any_depth(lines, field, human):
    configure_logs(stream=lines, human=human)
    structlog.get_logger().info("x", **{field: "6222021234561234"}, request={"inner": {field: "6222021234561234"}})
    assert "6222021234561234" not in lines.getvalue()
    assert "…" in lines.getvalue()


@pytest.mark.parametrize("human", [False, True])
def test_a_traceback_shows_no_local_variables(lines, human):
    configure_logs(stream=lines, human=human)

    def fail():
        card = "62220212" + "34561234"
        raise ValueError(len(card))

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed there too")
    assert lines.getvalue().count("ValueError: 16") == 2
    assert "6222021234561234" not in lines.getvalue()


def test_a_person_reads_plain_words(lines):
    configure_logs(stream=lines, human=True)
    structlog.get_logger().warning("sign_dialect_changed", merchant="m1")
    assert "sign_dialect_changed" in lines.getvalue()
    assert "{" not in lines.getvalue()


@pytest.mark.parametrize("library", ["pika.adapters", "alembic.runtime.migration"])
def test_the_chatter_of_libraries_is_left_out(lines, library):
    configure_logs(stream=lines, human=False)
    logging.getLogger(library).info("connecting")
    assert lines.getvalue() == ""
