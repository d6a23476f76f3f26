import inspect

import pytest
from gunicorn.http.message import Request
from gunicorn.workers.gthread import ThreadWorker

from service.web.worker import ReceiverWorker

OVERRIDDEN = [
    name
    for name, member in vars(ReceiverWorker).items()
    if inspect.isfunction(member) and hasattr(ThreadWorker, name) and name != "__init__"
]


def test_the_worker_replaces_what_it_means_to_replace():
    # gunicorn makes no promise about these names. A release that changes one must fail here, not in production.
    assert set(OVERRIDDEN) == {
        "accept",
        "finish_request",
        "handle",
        "handle_exit",
        "is_parent_alive",
        "murder_pending",
        "set_accept_enabled",
        "wait_for_and_dispatch_events",
        "_cap_keepalive",
    }


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_gunicorn_calls_what_the_worker_replaces_with_the_same_arguments(name):
    theirs, ours = (inspect.signature(getattr(worker, name)) for worker in (ThreadWorker, ReceiverWorker))
    assert len(theirs.parameters) == len(ours.parameters)


def test_gunicorns_parser_still_says_who_waits_for_100_continue():
    assert "_expected_100_continue" in inspect.getsource(Request) + inspect.getsource(inspect.getmodule(Request))
