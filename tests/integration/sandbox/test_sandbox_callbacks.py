"""What the sandbox sends to a notify_url: truly, late, twice, in another order, not at all, falsely."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from service.gateway.signature import verify_callback
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Acknowledgement, CallbackStyle, Misbehaviour, Timing
from tests.support.gateway import GatewayCaller
from tests.support.http_server import Answer, ScriptedServer
from tests.support.waiting import eventually


def report_of(server: Any) -> Any:
    return urllib3.request("GET", f"{server.base_url}/admin/report").json()


def sent_all(server: Any) -> Any:
    """The report, once nothing is left to be sent."""
    return eventually(lambda: (report := report_of(server))["callbacks_outstanding"] == 0 and report)


def statuses(listener: Any) -> Any:
    return [verify_callback(heard.body, heard.content_type).fields["pay_status"] for heard in listener.requests]


@pytest.fixture
def withhold(call: Callable[[SandboxServer], GatewayCaller], listener: ScriptedServer) -> Any:
    def send(server: Any, biz_order_no: Any, **changes: Any) -> Any:
        return call(server).withhold(
            biz_order_no, notify_url=f"{listener.origin}/notify/acme/k1.{biz_order_no}.c2VjcmV0c2VjcmV0", **changes
        )

    return send


@pytest.mark.parametrize(
    "style",
    [
        CallbackStyle(),
        CallbackStyle(signed_as="go+recursive"),
        CallbackStyle(signed_as="jackson+utf16", upper_case_sign=True),
        CallbackStyle(signed_as="php", sent_as="unicode"),
        CallbackStyle(form=True),
        CallbackStyle(form=True, upper_case_sign=True),
    ],
    ids=str,
)
def test_every_style_of_callback_carries_a_good_sign(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer, style: CallbackStyle
) -> None:
    server = start_sandbox(callback=style, senders=1)  # so that the first comes first
    withhold(server, "T1/订单-fail")
    sent_all(server)
    assert statuses(listener) == ["pending", "fail"]


def test_an_acknowledged_callback_is_sent_once(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(senders=1)
    withhold(server, "T1")
    report = sent_all(server)
    assert statuses(listener) == ["pending", "success"]
    assert (report["callbacks_sent"], report["acknowledged"], report["refused"]) == (2, 2, 0)


def test_without_a_notify_url_there_is_no_callback(
    start_sandbox: Callable[..., SandboxServer],
    call: Callable[[SandboxServer], GatewayCaller],
    listener: ScriptedServer,
) -> None:
    server = start_sandbox()
    call(server).withhold("T1")
    assert sent_all(server)["callbacks_sent"] == 0
    assert listener.requests == []


def test_a_callback_is_repeated_until_it_is_acknowledged(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox()
    listener.behave = lambda _: Answer(body=b"success" if len(listener.requests) > 3 else b"fail")
    withhold(server, "T1-stuck")
    report = sent_all(server)
    assert (report["callbacks_sent"], report["refused"], report["acknowledged"]) == (4, 3, 1)


def test_an_unacknowledged_callback_is_given_up(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox()
    listener.behave = lambda _: Answer(status=500, body=b"success")
    withhold(server, "T1-stuck")
    report = sent_all(server)
    assert (report["refused"], report["given_up"]) == (4, 1)


def test_an_unanswered_callback_is_counted_as_such(
    start_sandbox: Callable[..., SandboxServer], call: Callable[[SandboxServer], GatewayCaller], free_port: int
) -> None:
    server = start_sandbox()
    call(server).withhold("T1-stuck", notify_url=f"http://127.0.0.1:{free_port}/notify")
    assert sent_all(server)["unanswered"] == 4


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "\x00", "%41", "..", "xn--a"])
def test_an_address_that_leads_nowhere_stops_no_other_callback(
    start_sandbox: Callable[..., SandboxServer],
    call: Callable[[SandboxServer], GatewayCaller],
    withhold: Any,
    host: Any,
) -> None:
    server = start_sandbox(senders=1, misbehaviour=Misbehaviour(forge_share=1.0))
    call(server).withhold("T1-stuck", notify_url=f"http://{host}/notify/token")
    withhold(server, "T2-stuck")
    report = sent_all(server)
    assert (report["unanswered"], report["given_up"], report["acknowledged"]) == (4, 1, 1)


def test_the_acknowledgement_is_what_the_settings_say(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(acknowledgement=Acknowledgement(body="OK"))
    listener.behave = lambda _: Answer(body=b"OK")
    withhold(server, "T1")
    assert sent_all(server)["acknowledged"] == 2


def test_an_acknowledged_callback_is_sent_again_if_configured(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(repeat_share=1.0, max_repeats=2))
    withhold(server, "T1")
    report = sent_all(server)
    assert report["duplicates_sent"] == len(listener.requests) - 2 > 0
    assert max(Counter(heard.body for heard in listener.requests).values()) > 1


def test_the_terminal_callback_overtakes_the_pending_one_if_configured(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(reorder_share=1.0), senders=1)
    withhold(server, "T1")
    sent_all(server)
    assert statuses(listener) == ["success", "pending"]


def test_dropped_callbacks_never_come_and_are_counted(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(drop_share=1.0))
    withhold(server, "T1")
    report = sent_all(server)
    assert (report["dropped"], report["callbacks_sent"], listener.requests) == (1, 0, [])


def test_a_false_callback_contradicts_the_answer_to_a_query(
    start_sandbox: Callable[..., SandboxServer],
    withhold: Any,
    listener: ScriptedServer,
    call: Callable[[SandboxServer], GatewayCaller],
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(lie_share=1.0), senders=1)
    withhold(server, "T1-lie-fail")
    report = sent_all(server)
    assert report["lies_sent"] == 1
    assert statuses(listener) == ["pending", "success"]
    assert call(server).query("T1-lie-fail")["response"]["pay_status"] == "fail"
    (lie,) = urllib3.request("GET", f"{server.base_url}/admin/lies").json()
    assert (lie["biz_order_no"], lie["pay_status"], lie["reply"]) == ("T1-lie-fail", "success", "acknowledged")


def test_forgeries_carry_a_good_sign_and_never_the_orders_own_address(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(forge_share=1.0, forgeries_per_order=20))
    listener.behave = lambda heard: Answer(status=403, body=b"fail")
    withhold(server, "T1-stuck")
    withhold(server, "T2-silent-stuck")
    report = sent_all(server)
    assert (report["forged_sent"], report["forged_refused"], report["forged_acknowledged"]) == (40, 40, 0)
    addresses: Counter[str] = Counter()
    for heard in listener.requests:
        order_no = verify_callback(heard.body, heard.content_type).fields["biz_order_no"]
        addresses[heard.path.replace(str(order_no), "<own>")] += 1
    own = "/notify/acme/k1.<own>.c2VjcmV0c2VjcmV0"
    assert addresses.pop(own) == report["callbacks_sent"]
    assert "/notify/acme" in addresses
    assert any("<own>" in path for path in addresses)
    assert any("T1" in path or "T2" in path for path in addresses)


def test_forgeries_are_listed_with_what_they_claimed(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(misbehaviour=Misbehaviour(forge_share=1.0, forgeries_per_order=1))
    withhold(server, "T1-silent")
    sent_all(server)
    forgeries = urllib3.request("GET", f"{server.base_url}/admin/forgeries").json()
    assert [forgery["reply"] for forgery in forgeries] == ["acknowledged"]
    truth = urllib3.request("GET", f"{server.base_url}/admin/orders").json()[0]
    claimed = (forgeries[0]["pay_status"], forgeries[0]["pay_order_no"])
    assert claimed != ("success", truth["pay_order_no"])


def test_a_slow_sender_does_not_stop_the_sandbox_from_closing(
    start_sandbox: Callable[..., SandboxServer], withhold: Any, listener: ScriptedServer
) -> None:
    server = start_sandbox(timing=Timing(settle_seconds=3600.0))
    withhold(server, "T1")
    server.close()
    assert server.sandbox.outstanding() >= 1
