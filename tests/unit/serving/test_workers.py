"""What our workers take of gunicorn that it does not promise: a release that changes it must fail here."""

import inspect
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.base import Worker

from service.receiver.server import ReceiverWorker
from service.serving.threads import ThreadWorker
from service.serving.worker import LoopWorker

HEAD = b"POST /a?b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"


def replaced(worker: Any) -> Any:
    return {name for name, member in vars(worker).items() if inspect.isfunction(member) and hasattr(Worker, name)}


def test_the_workers_replace_what_they_mean_to_replace() -> None:
    assert replaced(LoopWorker) == {"__init__", "handle_exit", "init_process", "init_signals", "run"}
    assert replaced(ReceiverWorker) == {"__init__", "handle_exit", "load_wsgi"}
    assert replaced(ThreadWorker) == {"__init__", "handle_exit"}


@pytest.mark.parametrize("name", ["handle_exit", "init_process", "init_signals", "load_wsgi", "run"])
def test_gunicorn_calls_what_the_workers_replace_with_the_same_arguments(name: str) -> None:
    theirs, ours = (inspect.signature(getattr(worker, name)) for worker in (Worker, ReceiverWorker))
    assert len(theirs.parameters) == len(ours.parameters)


def test_gunicorns_parser_still_says_how_the_body_is_framed_and_who_waits_for_100_continue() -> None:
    chunked, fixed = (
        Request(Config(), IterUnreader([HEAD + framing + b"\r\n\r\n"]), ("192.0.2.1", 1))
        for framing in (b"Transfer-Encoding: chunked", b"Content-Length: 5")
    )
    assert isinstance(chunked.body.reader, ChunkedReader)
    assert isinstance(fixed.body.reader, LengthReader)
    assert fixed.body.reader.length == 5
    assert fixed._expected_100_continue
    assert (fixed.method, fixed.path, fixed.query, fixed.uri, fixed.version) == ("POST", "/a", "b", "/a?b", (1, 1))
    assert not fixed.should_close()
