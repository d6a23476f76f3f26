"""Reads requests, checks them against the document (HTTP, envelope, account, sign, args), and logs its breaches."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.domain.masking import mask_personal
from service.gateway.bodies import JsonValue, read_object
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.errors import CallbackRefused, CipherError, RequestRefused
from service.gateway.requests import AmountUnit, RequestMethod, verify_request
from service.runtime.logs import Logger
from service.sandbox.document_rules import (
    CALLS,
    ENCRYPTION,
    ENVELOPE,
    Breach,
    check_args,
    check_envelope,
    check_http,
    repeated_request_id,
    text_of,
)
from service.sandbox.settings import Account, SandboxSettings

_log = Logger(__name__)

#: This many are kept. Older ones are only counted.
_KEPT_BREACHES = 1000
_LONGEST_TEXT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBreach:
    """A breach of the document, and the request that has it."""

    #: ISO 8601.
    at: str
    ua: str
    method: str
    request_id: str
    #: The name to switch it off by under `[strictness]`; "" where none does.
    rule: str
    #: The document's heading.
    section: str
    #: What was found and what is allowed, in English. Quotes no value of the request.
    detail: str
    #: Whether the request was refused for it.
    refused: bool


class BreachLog:
    """The breaches that were found. Safe to use from many threads."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._breaches: deque[RecordedBreach] = deque(maxlen=_KEPT_BREACHES)
        self._counts = Counter(breaches_refused=0, breaches_served=0)
        self._lock = threading.Lock()

    def record(self, breach: Breach, envelope: Mapping[str, JsonValue], *, refused: bool) -> None:
        """Log and keep a breach in the request with this envelope."""
        recorded = RecordedBreach(
            at=self._clock().isoformat(),
            ua=_shown(envelope, "ua"),
            method=_shown(envelope, "method"),
            request_id=_shown(envelope, "requestId"),
            rule=breach.rule or "",
            section=breach.section,
            detail=breach.english,
            refused=refused,
        )
        with self._lock:
            self._breaches.append(recorded)
            self._counts["breaches_refused" if refused else "breaches_served"] += 1
        _log.warning(
            "document_rule_broken",
            ua=recorded.ua,
            method=recorded.method,
            request_id=recorded.request_id,
            rule=recorded.rule,
            section=recorded.section,
            detail=recorded.detail,
            refused=refused,
        )

    def breaches(self) -> list[RecordedBreach]:
        """The latest ones, oldest first."""
        with self._lock:
            return list(self._breaches)

    def counts(self) -> dict[str, int]:
        """How many breaches there were, by whether their requests were refused for them."""
        with self._lock:
            return dict(self._counts)


def _shown(envelope: Mapping[str, JsonValue], name: str) -> str:
    # A caller can put anything here.
    return mask_personal(text_of(envelope, name))[:_LONGEST_TEXT]


class RequestRejected(Exception):
    """A request cannot be served; the message is the gateway's answer to the caller, in the gateway's language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What came in over HTTP."""

    method: str
    #: The header; "" where there was none.
    content_type: str
    #: Raw.
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRequest:
    """A request whose caller is authenticated."""

    account: Account
    method: RequestMethod
    #: Decrypted.
    args: Mapping[str, JsonValue]

    def text(self, name: str, member: str | None = None) -> str:
        """An argument as text, or a `member` of one that is an array; "" where it is absent."""
        return text_of(self.args, name, member)


class RequestReader:
    """Reads requests with the accounts' ciphers, and remembers requestIds. Safe to use from many threads."""

    def __init__(self, *, settings: SandboxSettings, breach_log: BreachLog) -> None:
        """Raises KeyUnusable and DialectInvalid."""
        self._accounts = {account.ua: account for account in settings.accounts}
        self._dialects = {account.ua: RequestDialect.from_settings(account.dialect) for account in settings.accounts}
        self._ciphers = {
            account.ua: ArgsCipher(key=account.aes_key.reveal(), dialect=self._dialects[account.ua])
            for account in settings.accounts
        }
        self._strictness = settings.strictness
        self._breach_log = breach_log
        self._max_request_ids = settings.max_entries
        #: Pairs of ua and requestId, oldest first.
        self._request_ids: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def read(self, request: HttpRequest) -> OpenedRequest:
        """Read a request that keeps the enforced rules. Raises RequestRejected."""
        envelope = self._read_envelope(request)
        account = self._accounts.get(text_of(envelope, "ua"))
        if account is None:
            raise self._rejected("ua不存在", ENVELOPE, "ua: no account's", envelope)
        method = RequestMethod(text_of(envelope, "method"))
        args = self._open_args(account, envelope)
        breaches = check_args(
            method,
            args,
            amount_unit=AmountUnit(account.amount_unit),
            key_sorting=self._dialects[account.ua].key_sorting,
        )
        self._enforce([*self._check_request_id(envelope), *breaches], envelope)
        return OpenedRequest(account=account, method=method, args=args)

    def _read_envelope(self, request: HttpRequest) -> Mapping[str, JsonValue]:
        breaches = list(check_http(request.method, request.content_type))
        envelope: Mapping[str, JsonValue] = {}
        unreadable = ""
        try:
            envelope = read_object(request.body.decode("utf-8")).values
        except UnicodeDecodeError:
            unreadable = "the body is not UTF-8"
        except CallbackRefused as error:
            unreadable = error.detail
        if unreadable:
            breaches.append(Breach(None, CALLS, "请求体须为UTF-8编码的json对象", unreadable))
        else:
            breaches += check_envelope(envelope)
        self._enforce(breaches, envelope)
        return envelope

    def _open_args(self, account: Account, envelope: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
        """Verify the sign, then decrypt the args."""
        sealed = text_of(envelope, "args")
        try:
            verify_request(
                sign=text_of(envelope, "sign"),
                ua=account.ua,
                key=account.aes_key.reveal(),
                method=text_of(envelope, "method"),
                args=sealed,
                dialect=self._dialects[account.ua],
            )
            return self._ciphers[account.ua].open(sealed)
        except RequestRefused as error:
            found = "sign: not the md5 of ua, key, method and args (the ciphertext as sent), joined"
            raise self._rejected("签名错误", ENCRYPTION, found, envelope) from error
        except CipherError as error:
            raise self._rejected(
                "args解密失败, 须为json对象AES加密后的密文", ENCRYPTION, str(error), envelope
            ) from error

    def _check_request_id(self, envelope: Mapping[str, JsonValue]) -> Iterable[Breach]:
        used = text_of(envelope, "ua"), text_of(envelope, "requestId")
        with self._lock:
            repeated = used in self._request_ids
            self._request_ids[used] = None
            if len(self._request_ids) > self._max_request_ids:
                del self._request_ids[next(iter(self._request_ids))]
        # A missing requestId, where none is required, is not a repetition.
        return [repeated_request_id()] if repeated and used[1] else []

    def _enforce(self, breaches: Iterable[Breach], envelope: Mapping[str, JsonValue]) -> None:
        """Record the breaches of a request. Raises RequestRejected if a rule that is enforced is among them."""
        fatal = []
        for breach in breaches:
            refused = breach.rule is None or breach.rule in self._strictness
            self._breach_log.record(breach, envelope, refused=refused)
            if refused:
                fatal.append(breach)
        if fatal:
            sentences = [f"{breach.chinese}({breach.section})" for breach in fatal]
            raise RequestRejected(f"请求参数错误: {'; '.join(sentences)}")

    def _rejected(self, message: str, section: str, found: str, envelope: Mapping[str, JsonValue]) -> RequestRejected:
        self._breach_log.record(Breach(None, section, message, found), envelope, refused=True)
        return RequestRejected(message)
