"""Against a gateway in PHP: its own openssl, ksort and json_encode decide whether the document was understood."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.ledger.inquiries import InquiryReason
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.gateway import JUDGE_KEY, JUDGE_PAY_TYPE, JUDGE_UA, Judge
from tests.support.processes import Processes
from tests.support.waiting import eventually

PERSON = {"name": "欧阳/娜娜", "id_card_number": "11010519491231002X", "mobile": "13800138000"}
CARD = {"bank_card_number": "6222021234567890128"}

DEFAULT: tuple[dict[str, str], dict[str, str]] = ({}, {})
CBC_HEX = (
    {"JUDGE_MODE": "cbc", "JUDGE_ENCODING": "hex"},
    {"mode": "cbc", "iv": "key | first 16", "encoding": "hex"},
)
MD5_SEPARATOR = (
    {"JUDGE_KEY_FORM": "md5-hex", "JUDGE_SEPARATOR": "|"},
    {"key": "aes_key | md5 | hex", "sign_separator": "|"},
)
FILLED_TWICE = (
    {"JUDGE_BITS": "256", "JUDGE_MODE": "cbc", "JUDGE_IV": "1234567890123456", "JUDGE_ENCODING": "base64-twice"},
    {"key": "aes_key | fill 32", "mode": "cbc", "iv": "'1234567890123456'", "encoding": "base64 | base64"},
)
MD5_PART_REVERSED = (
    {"JUDGE_KEY_FORM": "md5-16-upper", "JUDGE_MODE": "cbc", "JUDGE_IV": "reversed"},
    {
        "key": "aes_key | md5 | hex | upper | skip 8 | first 16",
        "mode": "cbc",
        "iv": "aes_key | reverse | first 16",
    },
)
DIALECTS = pytest.mark.parametrize(
    ("told", "dialect"),
    [DEFAULT, CBC_HEX, MD5_SEPARATOR, FILLED_TWICE, MD5_PART_REVERSED],
    ids=["default", "cbc-hex", "md5-separator", "filled-twice", "md5-part-reversed"],
)


@pytest.fixture
def judge(processes: Processes, tmp_path: Path) -> Any:
    def start(told: Any) -> Judge:
        return Judge(processes, folder=tmp_path, environment=told)

    return start


@pytest.fixture
def judged(deploy: Callable[..., Deployment]) -> Any:
    """A deployment with the merchant `php`, whose gateway is the judge."""

    def make(judge: Any, gateway: str = "") -> Any:
        deployment = deploy(Place())
        settings = deployment.settings_file.read_text()
        settings = settings.replace("[receiver]", f'[receiver]\npublic_url = "{deployment.url}"', 1)
        deployment.settings_file.write_text(f"""{settings}
[merchants.php]
pay_types = ["{JUDGE_PAY_TYPE}"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "the token key of the judged merchant" }}]

[merchants.php.gateway]
url = "{judge.url}/"
ua = "{JUDGE_UA}"
aes_key = "{JUDGE_KEY}"
{gateway}
""")
        return deployment

    return make


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes personal data to a file, and says how a command is told of it."""

    def write(data: Any) -> Any:
        file = tmp_path / "person.json"
        file.write_text(json.dumps(data), encoding="utf-8")
        return ("--from", str(file))

    return write


def _pinned(dialect: Any) -> Any:
    return "[merchants.php.gateway.dialect]\n" + "".join(f'{name} = "{value}"\n' for name, value in dialect.items())


def _run(deployment: Any, *arguments: Any) -> Any:
    done = deployment.command("gateway", arguments[0], "--merchant", "php", *arguments[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _value(output: Any, name: Any) -> Any:
    return next(line.removeprefix(f"{name}: ") for line in output.splitlines() if line.startswith(f"{name}: "))


@pytest.mark.parametrize(
    ("told", "dialect", "callback"),
    [(*DEFAULT, "json"), (*CBC_HEX, "form"), (*MD5_SEPARATOR, "json"), (*FILLED_TWICE, "multipart")],
    ids=["default-json", "cbc-hex-form", "md5-separator-json", "filled-twice-multipart"],
)
def test_a_card_is_bound_charged_called_back_and_asked_about(
    judge: Any, judged: Any, written: Any, own_shop: Downstream, order: str, told: Any, dialect: Any, callback: Any
) -> None:
    php = judge({**told, "JUDGE_CALLBACK": callback})
    deployment = judged(php, _pinned(dialect))
    deployment.start(*ROLES)
    deployment.wait_until_receiving()

    unique_code = _value(_run(deployment, "bind", *written(PERSON | CARD)), "unique_code")
    code = {"verification_code": php.verification_code(unique_code)}
    confirmed = _run(deployment, "confirm", "--unique-code", unique_code, *written(code | CARD))
    protocol_no = _value(confirmed, "protocol_no")

    charge = ("--order", order, "--amount", "100.50", "--protocol-no", protocol_no)
    accepted = _run(deployment, "withhold", *charge, *written(PERSON))
    assert _value(accepted, "outcome") == "accepted"
    assert php.order(order)["amount"] == "100.50"

    answer = php.settle(order, "fail", channel_response="余额不足/51 <&>'")
    assert (answer["status"].split()[1], answer["body"]) == ("200", "success")
    eventually(lambda: [event.type for event in own_shop.about(order)] == ["payment.failed"])
    data = own_shop.about(order)[0].envelope["data"]
    assert (data["channel_response"], data["amount"]) == ("余额不足/51 <&>'", "100.50")

    assert _value(_run(deployment, "query", order), "pay_status") == "fail"
    assert php.calls == ["pre-tied-card", "confirm-tied-card", "single-withhold", "single-order-query"]
    assert len(set(php.request_ids)) == 4


@DIALECTS
def test_a_probe_learns_the_dialect_by_questions_alone_and_prints_settings_that_work(
    judge: Any, judged: Any, told: Any, dialect: Any
) -> None:
    php = judge(told)
    deployment = judged(php)
    printed = _run(deployment, "probe", "--pause-seconds", "0", "--max-requests", "1000")
    learned = tomllib.loads(printed[printed.index("[merchants.php.gateway]") :])["merchants"]["php"]["gateway"]
    assert learned["not_found_messages"] == ["订单不存在"]
    assert learned["dialect"] == {
        "sign_separator": "",
        "sign_case": "lower",
        "mode": "ecb",
        "key": "aes_key",
        "padding": "pkcs7",
        "encoding": "base64",
        **dialect,
    }
    assert set(php.calls) == {"single-order-query"}

    pinned = printed[printed.index("not_found_messages") :]
    asked = _run(judged(php, pinned), "query", "NO-SUCH-ORDER")
    assert asked == "The gateway has no such order: 订单不存在\n"


def test_a_probe_says_when_everything_is_refused_alike(judge: Any, judged: Any) -> None:
    php = judge({"JUDGE_UA": "ANOTHER"})
    done = judged(php).command("gateway", "probe", "--merchant", "php", "--pause-seconds", "0", "--max-requests", "60")
    assert done.returncode == 1
    assert "商户不存在" in done.stdout
    assert "every request had the same answer" in done.stderr


def test_a_probe_stops_when_it_has_asked_as_often_as_it_may(judge: Any, judged: Any) -> None:
    php = judge({"JUDGE_KEY_FORM": "md5-hex"})
    done = judged(php).command("gateway", "probe", "--merchant", "php", "--pause-seconds", "0", "--max-requests", "5")
    assert done.returncode == 1
    assert "no more are allowed" in done.stderr


def test_a_withhold_is_sent_once_however_often_it_is_asked_for(
    judge: Any, judged: Any, written: Any, order: str
) -> None:
    php = judge({})
    deployment = judged(php)
    charge = ("--order", order, "--amount", "1.00", *written(PERSON | CARD))
    _run(deployment, "withhold", *charge)
    assert _value(_run(deployment, "withhold", *charge), "outcome") == "accepted"
    assert php.calls == ["single-withhold"]


def test_a_refused_withhold_is_unknown_and_asked_about(judge: Any, judged: Any, written: Any, order: str) -> None:
    php = judge({})
    deployment = judged(php)
    charge = ("--order", order, "--amount", "1.00", "--protocol-no", "XY-of-nobody", *written(PERSON))
    done = deployment.command("gateway", "withhold", "--merchant", "php", *charge)
    assert done.returncode == 3
    assert "协议号不存在" in done.stdout
    (inquiry,) = deployment.ledger.inquiries_about(order)
    assert InquiryReason.UNKNOWN_OUTCOME in InquiryReason(inquiry.reasons)


def test_what_is_wrong_with_personal_data_is_said_without_quoting_it(
    judge: Any, judged: Any, written: Any, order: str
) -> None:
    php = judge({})
    wrong = {**PERSON, **CARD, "id_card_number": "110105194912310021", "mobile": "+8613800138000"}
    charge = ("--order", order, "--amount", "1", *written(wrong))
    done = judged(php).command("gateway", "withhold", "--merchant", "php", *charge)
    assert done.returncode == 1
    assert "id_card_number: an ID number whose check digit does not fit" in done.stderr
    assert "mobile: not a mobile number" in done.stderr
    for value in wrong.values():
        assert value not in done.stdout + done.stderr
