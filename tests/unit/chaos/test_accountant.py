"""The accountant finds every fault that is in the journals, and none that is not."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from standardwebhooks import Webhook

from tests.chaos import accountant
from tests.support.callbacks import Callback, mint_token, php
from tests.support.downstream import WEBHOOK_SECRET

_KEYS = {"debit": "a key of debit for the tests of the accountant", "asked": "a key of asked for the same tests"}
_TERMS = {
    "merchants": {
        "debit": {"trust": "capability", "token_keys": {"k1": _KEYS["debit"]}},
        "asked": {"trust": "query", "token_keys": {"k1": _KEYS["asked"]}},
    },
    "endpoints": {"shop": {"kind": "webhook", "secret": WEBHOOK_SECRET}, "bus": {"kind": "amqp"}},
    "acknowledgement": "success",
}
_NOW = 1_780_000_000.0
Line = dict[str, Any]


class Journals:
    """Those of a short run in which all is well: three orders, some of whose callbacks came twice or were refused."""

    def __init__(self) -> None:
        self.sent = [
            _sent(_callback("A/1 单", "pending"), at=1),
            _sent(_callback("A/1 单", "success"), at=2, status=503, answer="fail"),
            _sent(_callback("A/1 单", "success"), at=3, status=0, answer=""),
            _sent(_callback("A/1 单", "success"), at=4),
            _sent(_callback("A/1 单", "success"), at=5),
            _sent(_callback("B", "fail"), at=6),
            _sent(_callback("B", "pending"), at=7),
            # The gateway's own callback is false, and somebody else's is forged. Both are taken as reasons to ask.
            _sent(_callback("C", "success", merchant="asked"), at=8),
            _sent(_callback("C", "success", merchant="asked", token="", changes={"pay_order_no": "FORGED"}), at=9),
            _sent(_callback("B", "success", sent_by=_change("pay_order_no")), at=10, status=403, answer="fail"),
        ]
        self.gateway = [_reached("C", "SB1", "fail")]
        self.withheld = [
            _withheld("C", at=0, status=502, outcome="not-done"),
            _withheld("C", at=1, status=202, outcome="accepted"),
            _withheld("never sent", at=2, status=202, outcome="sending"),
        ]
        # Callbacks were refused before it and at its end, not by it.
        self.restarts = [{"from": _NOW + 2.125, "to": _NOW + 10.125}]
        events = [
            _event("debit", "A/1 单", 1, "processing"),
            _event("debit", "B", 1, "failed"),
            _event("debit", "A/1 单", 2, "succeeded"),
            _event("asked", "C", 1, "failed", pay_order_no="SB1", trust="query"),
        ]
        self.shop = [_webhook(event, at=20 + number) for number, event in enumerate(events)]
        self.shop.append(_webhook(events[0], at=24))  # delivered again
        self.bus = [{"at": _NOW + 30 + number, "body": body} for number, body in enumerate(events)]

    def audit(self, folder: Path) -> accountant.Report:
        """What the accountant makes of them."""
        (folder / "terms.json").write_text(json.dumps(_TERMS))
        journals = {
            "sent": [*self.sent, {"end": True}],
            "withheld": [*self.withheld, {"end": True}],
            "restarts": self.restarts,
            "gateway": self.gateway,
            "events-shop": self.shop,
            "events-bus": self.bus,
        }
        for name, lines in journals.items():
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        return accountant.audit(folder)


def _callback(
    biz_order_no: str, pay_status: str, *, merchant: str = "debit", token: str | None = None, **more: Any
) -> Callback:
    own = mint_token(kid="k1", key=_KEYS[merchant], merchant=merchant, biz_order_no=biz_order_no)
    return Callback(
        biz_order_no=biz_order_no,
        pay_status=pay_status,
        merchant=merchant,
        token=own if token is None else token,
        **more,
    )


def _change(field: str) -> Callable[[Mapping[str, str]], str]:
    return lambda fields: php({**fields, field: f"FORGED {fields[field]}"})


def _sent(callback: Callback, *, at: float, status: int = 200, answer: str = "success") -> Line:
    return {
        "at": _NOW + at,
        "seconds": 0.25,
        "path": callback.path,
        "body": callback.body.decode(),
        "status": status,
        "answer": answer,
    }


def _withheld(biz_order_no: str, *, at: float, status: int, outcome: str) -> Line:
    order = {"merchant": "asked", "biz_order_no": biz_order_no}
    return {"at": _NOW + at, "seconds": 0.25, **order, "status": status, "outcome": outcome}


def _reached(biz_order_no: str, pay_order_no: str, pay_status: str) -> Line:
    order = {"merchant": "asked", "biz_order_no": biz_order_no}
    return {"at": _NOW + 1.1, **order, "pay_order_no": pay_order_no, "pay_status": pay_status}


def _event(
    merchant: str, biz_order_no: str, sequence: int, status: str, *, type_: str = "", id_: str = "", **data: Any
) -> str:
    envelope = {
        "id": id_ or f"{merchant}/{quote(biz_order_no, safe='')}/{sequence}",
        "source": f"/merchants/{merchant}",
        "type": type_ or f"payment.{status}",
        "subject": biz_order_no,
        "data": {
            "merchant": merchant,
            "biz_order_no": biz_order_no,
            "pay_order_no": f"PAY-{biz_order_no}",
            "status": status,
            "sequence": sequence,
            "trust": "capability",
            **data,
        },
    }
    return json.dumps(envelope, ensure_ascii=False)


def _webhook(body: str, *, at: float) -> Line:
    event_id = json.loads(body)["id"]
    signature = Webhook(WEBHOOK_SECRET).sign(event_id, datetime.fromtimestamp(_NOW + at, UTC), body)
    headers = {"Webhook-Id": event_id, "Webhook-Timestamp": str(int(_NOW + at)), "Webhook-Signature": signature}
    return {"at": _NOW + at, "headers": headers, "body": body}


def _found(report: accountant.Report) -> dict[str, int]:
    return {fault: getattr(report, fault) for fault in accountant.FAULTS if getattr(report, fault)}


def test_where_all_is_well_nothing_is_found_and_everything_is_counted(tmp_path: Path) -> None:
    report = Journals().audit(tmp_path)
    assert (_found(report), report.examples) == ({}, {})
    assert (report.requests, report.callbacks, report.taken, report.tampered) == (10, 7, 5, 2)
    assert (report.refused, report.unanswered, report.during_restarts) == (2, 1, 7)
    assert (report.withholds, report.charged) == (2, 1)
    assert (report.events, report.delivered_again) == ({"shop": 4, "bus": 4}, {"shop": 1, "bus": 0})
    assert report.slowest_answer_seconds == 0.25
    # From the failure that began at 2 to the acknowledgement at 4.25; and from the one at 8.25 to the event at 33.
    assert report.longest_outage_seconds == pytest.approx(2.25)
    assert report.seconds_to_quiet == pytest.approx(24.75)


def _lose_an_event(journals: Journals) -> None:
    del journals.bus[2]


def _lose_all_events_of_an_order(journals: Journals) -> None:
    del journals.shop[1]


def _lose_what_the_gateway_says(journals: Journals) -> None:
    del journals.bus[3]


def _lose_an_order_that_was_never_called_back(journals: Journals) -> None:
    journals.gateway.append(_reached("D", "SB2", "success"))
    journals.withheld.append(_withheld("D", at=0, status=202, outcome="unknown"))


def _charge_again(journals: Journals) -> None:
    journals.gateway.append(_reached("C", "SB1", "fail"))


def _charge_what_nobody_requested(journals: Journals) -> None:
    del journals.withheld[:2]


def _say_that_it_was_not_done_after_it_was(journals: Journals) -> None:
    journals.withheld.append(_withheld("C", at=1.5, status=502, outcome="not-done"))


def _say_that_it_was_accepted_though_it_never_was_sent(journals: Journals) -> None:
    journals.withheld[2].update(outcome="accepted")


def _refuse_a_callback_by_a_restart(journals: Journals) -> None:
    journals.sent[6].update(status=503)


def _say_one_id_with_two_contents(journals: Journals) -> None:
    journals.bus.append({"at": _NOW, "body": _event("debit", "B", 1, "failed", observed_at="later")})


def _say_one_change_as_two_events(journals: Journals) -> None:
    journals.bus.append({"at": _NOW, "body": _event("debit", "B", 2, "failed")})


def _end_otherwise(journals: Journals) -> None:
    journals.bus[1] = {"at": _NOW, "body": _event("debit", "B", 1, "succeeded")}


def _correct_what_was_right(journals: Journals) -> None:
    journals.bus[2] = {"at": _NOW, "body": _event("debit", "A/1 单", 2, "succeeded", type_="payment.corrected")}


def _name_another_payment(journals: Journals) -> None:
    journals.bus[1] = {"at": _NOW, "body": _event("debit", "B", 1, "failed", pay_order_no="PAY-A")}


def _use_a_foreign_id(journals: Journals) -> None:
    journals.bus.append({"at": _NOW, "body": _event("debit", "B", 1, "failed", id_="debit/A/9")})


def _reorder(journals: Journals) -> None:
    journals.bus[0], journals.bus[2] = journals.bus[2], journals.bus[0]


def _go_back(journals: Journals) -> None:
    journals.bus.append({"at": _NOW, "body": _event("debit", "B", 2, "processing")})


def _leave_a_number_out(journals: Journals) -> None:
    journals.bus[2] = {"at": _NOW, "body": _event("debit", "A/1 单", 3, "succeeded")}


def _acknowledge_a_changed_body(journals: Journals) -> None:
    journals.sent[-1].update(status=200, answer="success")


def _acknowledge_the_token_of_another_order(journals: Journals) -> None:
    journals.sent.append(_sent(_callback("B", "fail", token=_callback("A", "fail").token), at=11))


def _acknowledge_no_token(journals: Journals) -> None:
    journals.sent.append(_sent(_callback("B", "fail", token=""), at=11))


def _acknowledge_a_wrong_token_where_the_gateway_is_asked(journals: Journals) -> None:
    journals.sent.append(_sent(_callback("C", "fail", merchant="asked", token="k1.Qw.AAAA"), at=11))


def _believe_a_forged_callback(journals: Journals) -> None:
    body = _event("asked", "C", 1, "succeeded", pay_order_no="FORGED", trust="query")
    journals.bus[3] = {"at": _NOW, "body": body}


def _believe_the_gateways_false_callback(journals: Journals) -> None:
    journals.bus[3] = {"at": _NOW, "body": _event("asked", "C", 1, "succeeded", trust="query")}


def _believe_without_a_question(journals: Journals) -> None:
    journals.bus[3] = {"at": _NOW, "body": _event("asked", "C", 1, "failed", pay_order_no="SB1", trust="capability")}


def _make_an_event_of_an_invented_order(journals: Journals) -> None:
    journals.bus.append({"at": _NOW, "body": _event("asked", "never charged", 1, "succeeded", trust="query")})


def _leave_the_signature_out(journals: Journals) -> None:
    del journals.shop[4]["headers"]["Webhook-Signature"]


def _change_a_signed_body(journals: Journals) -> None:
    journals.shop[4] = {**journals.shop[4], "body": journals.shop[4]["body"] + " "}


def _sign_an_old_time(journals: Journals) -> None:
    journals.shop.append({**_webhook(_event("debit", "B", 1, "failed"), at=-1000), "at": _NOW})


_DOCTORED = [
    (_lose_an_event, {"lost": 1}),
    (_lose_all_events_of_an_order, {"lost": 1}),
    (_lose_what_the_gateway_says, {"lost": 1}),
    (_lose_an_order_that_was_never_called_back, {"lost": 2}),
    (_charge_again, {"sent_twice": 1}),
    (_charge_what_nobody_requested, {"wrong_end": 1}),
    (_say_that_it_was_not_done_after_it_was, {"sent_twice": 1}),
    (_say_that_it_was_accepted_though_it_never_was_sent, {"lost": 1}),
    (_refuse_a_callback_by_a_restart, {"refused_by_restart": 1}),
    (_say_one_id_with_two_contents, {"twice": 1}),
    (_say_one_change_as_two_events, {"twice": 1}),
    (_end_otherwise, {"lost": 1, "wrong_end": 1}),
    (_correct_what_was_right, {"wrong_end": 1}),
    (_name_another_payment, {"wrong_end": 1}),
    (_use_a_foreign_id, {"wrong_end": 1}),
    (_reorder, {"regression": 1}),
    (_go_back, {"regression": 1}),
    (_leave_a_number_out, {"gap": 1}),
    (_acknowledge_a_changed_body, {"tampered_accepted": 1}),
    (_acknowledge_the_token_of_another_order, {"tampered_accepted": 1}),
    (_acknowledge_no_token, {"tampered_accepted": 1}),
    (_acknowledge_a_wrong_token_where_the_gateway_is_asked, {"tampered_accepted": 1}),
    (_believe_a_forged_callback, {"lost": 1, "tampered_accepted": 1}),
    (_believe_the_gateways_false_callback, {"lost": 1, "tampered_accepted": 1}),
    (_believe_without_a_question, {"tampered_accepted": 1}),
    (_make_an_event_of_an_invented_order, {"tampered_accepted": 1}),
    (_leave_the_signature_out, {"unsigned": 1}),
    (_change_a_signed_body, {"unsigned": 1}),
    (_sign_an_old_time, {"unsigned": 1}),
]


@pytest.mark.parametrize(("doctor", "found"), _DOCTORED, ids=[doctor.__name__.strip("_") for doctor, _ in _DOCTORED])
def test_each_fault_is_found_and_called_by_its_name(
    doctor: Callable[[Journals], None], found: dict[str, int], tmp_path: Path
) -> None:
    journals = Journals()
    doctor(journals)
    report = journals.audit(tmp_path)
    assert _found(report) == found, report.examples
    assert report.examples.keys() == found.keys()


def test_a_journal_that_the_sender_has_not_finished_is_not_counted(tmp_path: Path) -> None:
    Journals().audit(tmp_path)
    whole = (tmp_path / "sent.jsonl").read_text(encoding="utf-8")
    (tmp_path / "sent.jsonl").write_text(whole.removesuffix('{"end": true}\n'), encoding="utf-8")
    with pytest.raises(SystemExit, match="not whole"):
        accountant.audit(tmp_path)


def test_a_last_line_that_a_kill_has_cut_off_was_never_accepted(tmp_path: Path) -> None:
    Journals().audit(tmp_path)
    with (tmp_path / "events-bus.jsonl").open("a", encoding="utf-8") as journal:
        journal.write('{"at": 1, "bo')
    assert _found(accountant.audit(tmp_path)) == {}


def test_it_runs_where_nothing_but_pythons_library_can_be_imported(tmp_path: Path) -> None:
    journals = Journals()
    _lose_an_event(journals)
    journals.audit(tmp_path)
    command = [sys.executable, "-I", "-S", accountant.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["lost"] == 1
