"""Learns an unknown gateway's request dialect by querying orders that do not exist. Never sends a withhold.

Guesses are judged by comparing answers, never by their text. A sign is right if the answer differs from the answer to a
surely wrong sign. Args were decrypted if the answer depends on their content.
"""

import base64
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import product
from math import prod

from service.config.secrets import Secret
from service.config.settings import GatewaySettings
from service.gateway.cipher import (
    BASE64,
    BASE64_TWICE,
    BASE64_URL,
    BASE64_URL_UNPADDED,
    HEX,
    HEX_UPPER,
    ArgsCipher,
    Mode,
    Padding,
    RequestDialect,
    SignCase,
)
from service.gateway.errors import KeyUnusable, OutcomeUnknown
from service.gateway.key_derivation import SENT
from service.gateway.messages import to_text
from service.gateway.requests import RequestMethod, new_request_id, write_envelope
from service.gateway.transport import GatewayTransport, HttpAnswer

_MAX_EXAMPLES = 3
_ORDER_NO_FIELD = "biz_order_no"
# Of the same length, so that only the content can make a difference.
_OTHER_FIELD = "probe_number"
_MIN_CHARACTERS = len('{"biz_order_no":"PROBE"}')
_BLOCK = 16
# 10 bytes of PKCS7 padding are line feeds: a gateway that expects zero bytes reads them as white space after the JSON.
_NEUTRAL_PADDING = 10
# 12 is not white space in JSON, unlike 13, 10 and 9.
_DISTINCTIVE_PADDING = 12
# Answers to wrong guesses may differ by chance, so a difference must be confirmed.
_CONFIRMATIONS = 2
# Parts of an answer that vary without meaning: request numbers, times, memory addresses.
_VARYING = re.compile(r"[0-9a-fA-F]{16,}|[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+|[0-9]{10,}")
_LONGEST_MESSAGE = 250
_SEPARATORS = ("", "&", "|", "-", "_", ",", ":", ";", "#", "+", "\n")
_KEYS = (
    "aes_key",
    "aes_key | first 16",
    "aes_key | md5 | hex",
    "aes_key | md5",
    "aes_key | from hex",
    "aes_key | from base64",
    "aes_key | sha256",
    "aes_key | sha1prng 16",
    "aes_key | md5 | hex | first 16",
    "aes_key | md5 | hex | skip 8 | first 16",
    "aes_key | fill 16",
    "aes_key | fill 32",
    "aes_key | md5 | hex | upper",
    "aes_key | md5 | hex | upper | first 16",
    "aes_key | md5 | hex | upper | skip 8 | first 16",
    "aes_key | md5 | hex | last 16",
    "aes_key | md5 | hex | upper | last 16",
    "aes_key | sha256 | hex | first 32",
    "aes_key | sha256 | hex | first 16",
    "aes_key | sha256 | first 16",
    "aes_key | sha1 | first 16",
    "aes_key | sha1prng 32",
    "aes_key | fill 24",
    "aes_key | sha1prng 24",
    "aes_key | sha256 | hex | upper | first 32",
    "aes_key | sha256 | hex | upper | first 16",
    "aes_key | sha256 | hex | last 32",
    "aes_key | sha256 | hex | upper | last 32",
    "aes_key | sha256 | hex | last 16",
    "aes_key | sha256 | hex | upper | last 16",
    "aes_key | sha1 | hex | first 16",
    "aes_key | sha1 | hex | first 32",
    "aes_key | last 16",
    "aes_key | first 24",
    "aes_key | first 32",
    "aes_key | reverse",
)
#: "" is ECB.
_IVS = (
    "",
    "key | first 16",
    "zeros",
    "sent",
    "'1234567890123456'",
    "aes_key | first 16",
    "aes_key | last 16",
    "aes_key | md5",
    "aes_key | md5 | hex | first 16",
    "aes_key | reverse | first 16",
    "'0102030405060708'",
    "aes_key | md5 | hex | skip 8 | first 16",
    "aes_key | md5 | hex | last 16",
    "aes_key | md5 | hex | upper | first 16",
    "aes_key | md5 | hex | upper | skip 8 | first 16",
    "aes_key | md5 | hex | upper | last 16",
    "key | last 16",
    "key | md5",
    "key | reverse | first 16",
    "'0123456789abcdef'",
    "'0000000000000000'",
)
# Encodings that `_guess_writings` finds are left out, except base64url: with some keys no text is the same in both.
_ENCODINGS = (BASE64, HEX, BASE64_TWICE, BASE64_URL, HEX_UPPER)
# Encodings that give the same text if it needs neither `=` nor a character that differs.
_BASE64_VARIANTS = (BASE64, BASE64_URL, BASE64_URL_UNPADDED)


@dataclass(frozen=True, slots=True, order=True)
class AnswerKind:
    """What equal answers have in common."""

    http_status: int
    #: The answer's own `status`, as text; "" if it is no JSON object.
    status: str
    #: Its `message` with `…` for variable parts; if it is no JSON object, why not.
    message: str


class Meaning(StrEnum):
    """What a group of answers means, for people."""

    SIGN_REFUSED = "the sign was refused: this is also the answer to a sign that is surely wrong"
    NOT_READ = "the args could not be read: this is also the answer to random bytes, or does not depend on the text"
    ORDER_MISSING = "the args were read, and the gateway misses an order number in them, as it should"
    NO_SUCH_ORDER = "the request was understood: there is no such order"
    SAME_FOR_ALL = "said to everything, also to a wrong sign: something before the sign is refused (ua, address, url)"
    UNDECIDED = "unclear: it is neither the answer to a wrong sign nor to random bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerGroup:
    """All answers of one kind."""

    kind: AnswerKind
    meaning: Meaning
    #: How many requests were answered so.
    requests: int
    #: What a few of the requests tried, e.g. `sign_separator = "|"`.
    examples: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a probe has learned."""

    #: None if no guess was understood. If the probe was `stopped`, padding and encoding are only likely.
    dialect: RequestDialect | None
    #: The answer for an order that the gateway does not have; None if no guess was understood.
    not_found: AnswerKind | None
    #: All answers, by meaning.
    groups: Sequence[AnswerGroup]
    #: Why the probe stopped before it had tried every guess; "" if it did not.
    stopped: str


class Probe:
    """Probes one gateway, with one request at a time."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        clock: Callable[[], datetime],
        pause: Callable[[], None],
        on_request: Callable[[str], None],
        max_requests: int,
    ) -> None:
        """`pause` is called between requests. `on_request` is called before each, with what it tries.

        The key and iv of the settings' own dialect are tried first. Raises `DialectInvalid`.
        """
        self._settings = settings
        self._hints = RequestDialect.from_settings(settings.dialect)
        self._transport = GatewayTransport(settings=settings)
        self._clock = clock
        self._pause = pause
        self._on_request = on_request
        self._max_requests = max_requests
        self._counts: Counter[AnswerKind] = Counter()
        self._examples: dict[AnswerKind, list[str]] = defaultdict(list)
        self._meanings: dict[AnswerKind, Meaning] = {}
        self._dialect: RequestDialect | None = None

    def run(self) -> ProbeResult:
        """Run the probe once. Raises a `CallFailed` if the gateway does not answer."""
        stopped = ""
        try:
            self._find_dialect()
        except _Stopped as reason:
            stopped = str(reason)
        if len(self._counts) == 1:
            self._meanings = dict.fromkeys(self._counts, Meaning.SAME_FOR_ALL)
        not_found = next((kind for kind, what in self._meanings.items() if what is Meaning.NO_SUCH_ORDER), None)
        return ProbeResult(dialect=self._dialect, not_found=not_found, groups=self._groups(), stopped=stopped)

    def _find_dialect(self) -> None:
        # Some gateways decrypt before they verify the sign. With them, readable args are found first, then the sign.
        signed = self._find_sign(RequestDialect(), _noise()) or self._find_sign_of_readable_args()
        self._dialect = self._find_cipher(signed) if signed else None
        if self._dialect:
            self._dialect = self._find_writing(self._dialect)

    def _find_sign(self, base: RequestDialect, args: str) -> RequestDialect | None:
        """`base` with the right sign. All requests have the same args, so that only the sign makes a difference."""
        refused = self._query_with_wrong_sign(base, args)
        for guess in _guess_signs(base):
            label = f"sign_separator = {guess.sign_separator!r}, sign_case = {guess.sign_case}"
            if self._query(guess, label, args=args) == refused:
                continue
            if self._query_with_wrong_sign(base, args) != refused:
                raise _Stopped("the answer to a wrong sign has changed: the gateway may need longer pauses")
            self._meanings[refused] = Meaning.SIGN_REFUSED
            return guess
        return None

    def _query_with_wrong_sign(self, base: RequestDialect, args: str) -> AnswerKind:
        return self._query(base, "a sign that is surely wrong", args=args, sign=secrets.token_hex(16))

    def _find_sign_of_readable_args(self) -> RequestDialect | None:
        unread = {self._query(RequestDialect(), "random bytes as args", args=_noise())}
        for guess in _guess_ciphers(RequestDialect(), self._settings.aes_key, hints=self._hints):
            _, args = _seal_new_order_no(_ORDER_NO_FIELD, self._settings.aes_key, guess, distinctive=False)
            kind = self._query(guess, _describe(guess), args=args)
            if kind in unread:
                continue
            if signed := self._find_sign(guess, args):
                self._meanings |= dict.fromkeys(unread, Meaning.NOT_READ)
                return signed
            # Only another error, e.g. because of the padding.
            unread.add(kind)
        return None

    def _find_cipher(self, base: RequestDialect) -> RequestDialect | None:
        unread = {self._query(base, "random bytes as args", args=_noise())}
        found = None
        # The base first: if the sign was found with readable args, it is their dialect.
        guesses = _guess_ciphers(base, self._settings.aes_key, hints=self._hints)
        for guess in sorted(guesses, key=lambda guess: guess != base):
            kind = self._query(guess, _describe(guess))
            if kind in unread:
                continue
            others = self._answers_without_order_no(guess, kind)
            if len(others) == 1 and kind not in others:
                self._meanings |= {others.pop(): Meaning.ORDER_MISSING, kind: Meaning.NO_SUCH_ORDER}
                found = guess
                break
            unread |= {kind, *others}
        for kind in unread:
            self._meanings.setdefault(kind, Meaning.NOT_READ)
        return found

    def _find_writing(self, understood: RequestDialect) -> RequestDialect:
        """`understood` with its true padding and encoding: the queries so far could be read with several of them."""
        for guess in _guess_writings(understood):
            kind = self._query(guess, _describe(guess), distinctive=True)
            if self._meanings.get(kind) is Meaning.NO_SUCH_ORDER:
                return guess
        return understood

    def _answers_without_order_no(self, guess: RequestDialect, kind: AnswerKind) -> set[AnswerKind]:
        """The answers without an order number: one, other than `kind`, if that repeats; else `kind` is among them."""
        others = set()
        for _ in range(_CONFIRMATIONS):
            others.add(self._query(guess, f"{_describe(guess)}, and no order number", field=_OTHER_FIELD))
            if len(others) > 1 or kind in others:
                break
            again = self._query(guess, _describe(guess))
            if again != kind:
                return {kind, again, *others}
        return others

    def _query(
        self,
        dialect: RequestDialect,
        label: str,
        *,
        field: str = _ORDER_NO_FIELD,
        distinctive: bool = False,
        args: str = "",
        sign: str = "",
    ) -> AnswerKind:
        if self._counts.total() == self._max_requests:
            raise _Stopped(f"{self._max_requests} requests were made, and no more are allowed")
        if self._counts:
            self._pause()
        self._on_request(label)
        aes_key = self._settings.aes_key
        order_no, sealed = ("", args) if args else _seal_new_order_no(field, aes_key, dialect, distinctive=distinctive)
        request_id = new_request_id()
        body = write_envelope(
            RequestMethod.SINGLE_ORDER_QUERY,
            sealed,
            ua=self._settings.ua,
            aes_key=aes_key,
            dialect=dialect,
            request_id=request_id,
            sent_at=self._clock(),
            sign=sign,
        )
        answer = self._transport.post(body, timeout_seconds=self._settings.timeout_seconds)
        kind = _classify(answer, request_ids=[text for text in (order_no, request_id) if text])
        self._counts[kind] += 1
        if len(self._examples[kind]) < _MAX_EXAMPLES:
            self._examples[kind].append(label)
        return kind

    def _groups(self) -> Sequence[AnswerGroup]:
        groups = [
            AnswerGroup(
                kind=kind,
                meaning=self._meanings.get(kind, Meaning.UNDECIDED),
                requests=count,
                examples=tuple(self._examples[kind]),
            )
            for kind, count in self._counts.items()
        ]
        rank = list(Meaning)
        return sorted(groups, key=lambda group: (rank.index(group.meaning), group.kind))


class _Stopped(Exception):
    """The probe cannot continue. The message says why."""


def _seal_new_order_no(field: str, aes_key: Secret, dialect: RequestDialect, *, distinctive: bool) -> tuple[str, str]:
    """A number that no order has, and args that hold it under `field`.

    `distinctive` args can be read with their own padding and base64 alphabet only. Other args can be read with either
    padding and, where possible, with either alphabet. Whether that is possible does not depend on `field`.
    """
    cipher = ArgsCipher(key=aes_key.reveal(), dialect=dialect)
    sent_iv = dialect.iv == SENT
    characters = _order_no_characters(sent_iv=sent_iv, distinctive=distinctive)
    in_one_alphabet = distinctive or dialect.encoding != BASE64 or not (sent_iv or _begins_alike_in_any_base64(cipher))
    while True:
        order_no = f"PROBE{secrets.token_hex(characters // 2)}"
        args = cipher.seal({field: order_no})
        if dialect.encoding not in _BASE64_VARIANTS or in_one_alphabet is _needs_one_alphabet(args):
            return order_no, args


def _begins_alike_in_any_base64(cipher: ArgsCipher) -> bool:
    # Unless the iv is sent, the first block, 21 characters, is the same in every query with a field.
    return not any(_needs_one_alphabet(cipher.seal({field: ""})[:21]) for field in (_ORDER_NO_FIELD, _OTHER_FIELD))


def _needs_one_alphabet(args: str) -> bool:
    return any(character in args for character in "+/-_")


def _order_no_characters(*, sent_iv: bool, distinctive: bool) -> int:
    """How many characters after PROBE give the wanted padding, and base64 with or without `=` at its end."""
    padding = _DISTINCTIVE_PADDING if distinctive else _NEUTRAL_PADDING
    sealed = 3 * _BLOCK
    while True:
        written = sealed - padding - _BLOCK * sent_iv
        if written > _MIN_CHARACTERS + 12 and (sealed % 3 != 0) is distinctive:
            return written - _MIN_CHARACTERS
        sealed += _BLOCK


def _noise() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _describe(guess: RequestDialect) -> str:
    iv = f" with iv = {guess.iv}" if guess.iv else ""
    return f"key = {guess.key}, {guess.mode}{iv}, {guess.padding}, {guess.encoding}"


def _classify(answer: HttpAnswer, *, request_ids: Sequence[str]) -> AnswerKind:
    """The kind of an answer. It may quote `request_ids`: the request's order number and requestId."""
    try:
        fields = answer.read_fields()
    except OutcomeUnknown as error:
        return AnswerKind(answer.status, "", str(error))
    message = to_text(fields.get("message"))
    for quoted in request_ids:
        message = message.replace(quoted, "…")
    return AnswerKind(answer.status, to_text(fields.get("status")), _VARYING.sub("…", message)[:_LONGEST_MESSAGE])


def _guess_signs(base: RequestDialect) -> Iterator[RequestDialect]:
    """`base` with every separator and case of the sign."""
    for separator, case in product(_SEPARATORS, SignCase):
        yield replace(base, sign_separator=separator, sign_case=case)


def _guess_ciphers(base: RequestDialect, aes_key: Secret, *, hints: RequestDialect) -> Sequence[RequestDialect]:
    """`base` with every usable combination of key, mode, iv and encoding, and with PKCS7.

    The key and iv of `hints`, the settings' own dialect, come first. Guesses with fewer unlikely choices come before
    others. No AES key and iv are tried twice.
    """
    ivs = (hints.iv, *_IVS) if hints.iv else _IVS
    ranked = []
    keyed = _distinct((_with_cipher(base, key, "") for key in (hints.key, *_KEYS)), aes_key)
    for key_place, with_key in enumerate(keyed):
        ciphers = _distinct((_with_cipher(base, with_key.key, iv) for iv in ivs), aes_key)
        for (iv_place, cipher), (place, encoding) in product(enumerate(ciphers), enumerate(_ENCODINGS)):
            places = (key_place, iv_place, place)
            rank = prod(place + 1 for place in places)
            ranked.append((rank, places, replace(cipher, encoding=encoding)))
    return [guess for _, _, guess in sorted(ranked, key=lambda guess: guess[:2])]


def _guess_writings(understood: RequestDialect) -> Iterator[RequestDialect]:
    """`understood` with every padding, and with the encodings that look like its own, likeliest first."""
    encodings = _BASE64_VARIANTS if understood.encoding in _BASE64_VARIANTS else (understood.encoding,)
    for padding, encoding in product(Padding, encodings):
        yield replace(understood, padding=padding, encoding=encoding)


def _with_cipher(base: RequestDialect, key: str, iv: str) -> RequestDialect:
    mode = Mode.CBC if iv else Mode.ECB
    return replace(base, key=key, mode=mode, iv=iv, padding=Padding.PKCS7, encoding=BASE64)


def _distinct(guesses: Iterable[RequestDialect], aes_key: Secret) -> Sequence[RequestDialect]:
    """The guesses that the key can be used with; of those with the same AES key and iv, only the first."""
    found: dict[str, RequestDialect] = {}
    for guess in guesses:
        try:
            cipher = ArgsCipher(key=aes_key.reveal(), dialect=guess)
        except KeyUnusable:
            continue
        # Two blocks, because ECB and an iv of zeros give the same first block.
        found.setdefault(cipher.encrypt(bytes(16), iv=bytes(16)), guess)
    return list(found.values())
