"""A probe against gateways of many dialects, careful and careless ones."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.errors import CipherError, NotSent
from service.gateway.probe import Meaning, Probe
from service.gateway.requests import sign_request
from service.sandbox.server import SandboxServer
from tests.support.http_server import Answer, Request, ScriptedServer

KEY = "0123456789abcdef"
SHORT_KEY_19 = "no key of a cipher."
DEFAULT = {
    "sign_separator": "",
    "sign_case": "lower",
    "mode": "ecb",
    "key": "aes_key",
    "iv": "",
    "padding": "pkcs7",
    "encoding": "base64",
}


def probe(url: Any, *, max_requests: int = 400, key: Any = KEY, dialect: Any = None) -> Any:
    pauses = itertools.count()
    tried: list[Any] = []

    def pause() -> None:
        next(pauses)

    result = Probe(
        settings=GatewaySettings(url=url, ua="ACME", aes_key=Secret(key), dialect=dialect or {}),
        clock=lambda: datetime.now(UTC),
        pause=pause,
        on_request=tried.append,
        max_requests=max_requests,
    ).run()
    assert next(pauses) == len(tried) - 1
    assert sum(group.requests for group in result.groups) == len(tried)
    return result


def learned(result: Any) -> Any:
    return {name: getattr(result.dialect, name) for name in DEFAULT}


def meanings(result: Any) -> Any:
    return {group.kind.message: group.meaning for group in result.groups}


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"sign_separator": "&", "sign_case": "upper"},
        {"mode": "cbc", "iv": "key | first 16"},
        {"mode": "cbc", "iv": "zeros", "encoding": "hex"},
        {"mode": "cbc", "iv": "sent", "encoding": "base64url"},
        {"mode": "cbc", "iv": "sent", "padding": "zero"},
        {"key": "aes_key | sha256", "encoding": "base64url-unpadded", "sign_separator": "-"},
        {"key": "aes_key | md5", "padding": "zero"},
        {"key": "aes_key | md5 | hex", "mode": "cbc", "iv": "sent", "sign_separator": "|", "sign_case": "upper"},
        {"key": "aes_key | sha1prng 16"},
        {"key": "aes_key | sha1prng 16", "encoding": "base64 | base64"},
        {"key": "aes_key | sha1prng 24"},
        {"key": "aes_key | fill 32", "padding": "zero", "encoding": "hex"},
        {"key": "aes_key | md5 | hex | upper"},
        {"key": "aes_key | md5 | hex | upper | skip 8 | first 16", "encoding": "base64url"},
        {"key": "aes_key | sha256 | hex | upper | last 16"},
        {"encoding": "base64 | base64"},
        {"mode": "cbc", "iv": "'1234567890123456'", "encoding": "base64 | base64"},
        {"mode": "cbc", "iv": "aes_key | md5"},
        {"mode": "cbc", "iv": "aes_key | reverse | first 16"},
        {"key": "aes_key | md5 | hex", "mode": "cbc", "iv": "key | reverse | first 16"},
        {"key": "aes_key | sha256", "mode": "cbc", "iv": "aes_key | md5", "encoding": "hex"},
    ],
    ids=str,
)
def test_any_dialect_is_learned(start_sandbox: Callable[..., SandboxServer], dialect: dict[str, Any]) -> None:
    result = probe(start_sandbox(dialect=dialect).url)
    # The sandbox reads base64url with and without its `=`: the likelier one is pinned.
    likelier = {"encoding": "base64url"} if dialect.get("encoding") == "base64url-unpadded" else {}
    assert learned(result) == {**DEFAULT, **dialect, **likelier}
    assert result.not_found.message == "订单不存在"
    assert meanings(result)["签名错误"] is Meaning.SIGN_REFUSED


def test_an_unlikely_dialect_is_learned_by_who_may_ask_often(start_sandbox: Callable[..., SandboxServer]) -> None:
    dialect = {"key": "aes_key | sha1prng 24", "mode": "cbc", "iv": "aes_key | last 16", "encoding": "base64 | base64"}
    result = probe(start_sandbox(dialect=dialect, aes_key=SHORT_KEY_19).url, max_requests=5000, key=SHORT_KEY_19)
    assert learned(result) == {**DEFAULT, **dialect}


def test_a_short_key_filled_with_zero_bytes_is_learned(start_sandbox: Callable[..., SandboxServer]) -> None:
    dialect = {"key": "aes_key | fill 16", "mode": "cbc", "iv": "key | first 16"}
    result = probe(start_sandbox(dialect=dialect, aes_key="a short key").url, key="a short key")
    assert learned(result) == {**DEFAULT, **dialect}


def test_the_iv_of_the_settings_is_tried(start_sandbox: Callable[..., SandboxServer]) -> None:
    given = {"mode": "cbc", "iv": "'handed out by us'"}
    server = start_sandbox(dialect={**given, "key": "aes_key | md5", "encoding": "hex"})
    assert probe(server.url, max_requests=100).dialect is None
    assert learned(probe(server.url, max_requests=100, dialect=given)) == {
        **DEFAULT,
        **given,
        "key": "aes_key | md5",
        "encoding": "hex",
    }


def test_a_probe_that_is_stopped_over_the_last_questions_has_learned_what_it_knows(
    start_sandbox: Callable[..., SandboxServer],
) -> None:
    server = start_sandbox(dialect={"padding": "zero", "encoding": "hex"})
    whole = sum(group.requests for group in probe(server.url).groups)
    result = probe(server.url, max_requests=whole - 1)
    assert (result.dialect.encoding, result.stopped != "") == ("hex", True)


class _Gateway:
    """A gateway as careless as a test wants it to be."""

    def __init__(
        self,
        *,
        dialect: Any = None,
        decrypts_first: bool = False,
        one_word_for_bad_requests: bool = False,
        says_why: bool = False,
    ) -> None:
        self._dialect = RequestDialect.from_settings(dialect or {})
        self._cipher = ArgsCipher(key=KEY, dialect=self._dialect)
        self._decrypts_first = decrypts_first
        self._one_word = one_word_for_bad_requests
        self._says_why = says_why
        self.methods: set[str] = set()

    def __call__(self, request: Request) -> Answer:
        envelope = request.json()
        self.methods.add(envelope["method"])
        checks = [self._check_sign, self._check_args]
        if self._decrypts_first:
            checks.reverse()
        for check in checks:
            if complaint := check(envelope):
                return self._failure("请求错误" if self._one_word else complaint)
        order = self._cipher.open(envelope["args"]).get("biz_order_no")
        # The number in the message is another one every time.
        return self._failure(f"订单{order}不存在, {envelope['requestId']}" if order else "缺少订单号")

    def _check_sign(self, envelope: Any) -> Any:
        right = sign_request(
            ua="ACME",
            key=KEY,
            method=envelope["method"],
            args=envelope["args"],
            dialect=self._dialect,
        )
        return None if envelope["sign"] == right else "签名错误"

    def _check_args(self, envelope: Any) -> Any:
        try:
            self._cipher.open(envelope["args"])
        except CipherError as error:
            return str(error) if self._says_why else "解密失败"
        return None

    def _failure(self, message: str) -> Answer:
        return Answer(body=json.dumps({"status": -1, "message": message, "response": []}))


@pytest.mark.parametrize("says_why", [False, True])
def test_a_gateway_that_decrypts_before_it_checks_the_sign_is_learned_too(says_why: bool) -> None:
    dialect = {"mode": "cbc", "iv": "key | first 16", "sign_separator": "|"}
    gateway = _Gateway(dialect=dialect, decrypts_first=True, says_why=says_why)
    with ScriptedServer(gateway) as listener:
        result = probe(listener.url)
    assert learned(result) == {**DEFAULT, "mode": "cbc", "iv": "key | first 16", "sign_separator": "|"}
    assert gateway.methods == {"single-order-query"}


def test_a_gateway_with_one_message_for_bad_signs_and_bad_args_is_learned_too() -> None:
    with ScriptedServer(_Gateway(dialect={"encoding": "hex"}, one_word_for_bad_requests=True)) as listener:
        result = probe(listener.url)
    assert learned(result) == {**DEFAULT, "encoding": "hex"}


def test_what_varies_in_messages_does_not_part_the_groups() -> None:
    with ScriptedServer(_Gateway()) as listener:
        assert meanings(probe(listener.url))["订单…不存在, …"] is Meaning.NO_SUCH_ORDER


def test_nothing_is_learned_from_a_gateway_with_one_answer_only() -> None:
    with ScriptedServer(lambda _: Answer(body='{"status":-1,"message":"IP不在白名单","response":[]}')) as listener:
        result = probe(listener.url)
    assert result.dialect is None
    assert meanings(result) == {"IP不在白名单": Meaning.SAME_FOR_ALL}


def test_a_gateway_that_locks_out_fast_clients_is_not_taken_to_have_understood() -> None:
    count = itertools.count(1)

    def tired(request: Request) -> Answer:
        locked_out = next(count) > 3
        return Answer(body='{"status":-1,"message":"请求过于频繁"}') if locked_out else gateway(request)

    gateway = _Gateway(dialect={"sign_separator": "#"})
    with ScriptedServer(tired) as listener:
        result = probe(listener.url)
        assert len(listener.requests) == 5
    assert result.dialect is None
    assert "longer pauses" in result.stopped


def test_another_key_is_not_taken_for_a_dialect() -> None:
    gateway = _Gateway()
    with ScriptedServer(gateway) as listener:
        assert probe(listener.url, key="another key here").dialect is None


def test_no_more_is_asked_than_is_allowed() -> None:
    with ScriptedServer(_Gateway(dialect={"key": "aes_key | sha256"})) as listener:
        result = probe(listener.url, max_requests=7)
        assert len(listener.requests) == 7
    assert result.dialect is None
    assert "7 requests" in result.stopped


def test_an_unreachable_gateway_is_reported(free_port: int) -> None:
    with pytest.raises(NotSent):
        probe(f"http://127.0.0.1:{free_port}/")
