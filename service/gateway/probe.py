"""Learns an unknown gateway's request dialect by asking for orders that do not exist. Never sends a withhold.

Guesses are judged by comparison, never by the words of an answer. A sign is right where the answer is another one than
to a surely wrong sign. Args were read where the answer changes with what is written in them.
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

from service.config.settings import GatewaySettings, Secret
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
from service.gateway.messages import RequestMethod
from service.gateway.request_envelope import new_request_id, sign_request, write_envelope
from service.gateway.schemas import to_text
from service.gateway.transport import GatewayTransport, HttpAnswer

_MOST_EXAMPLES = 3
_ORDER_NO_FIELD = "biz_order_no"
# Of the same length, so that nothing but what is written can make a difference.
_OTHER_FIELD = "probe_number"
_LEAST_CHARACTERS = len('{"biz_order_no":"PROBE"}')
_BLOCK = 16
# Of 10 bytes of PKCS7, each a line feed: white space after the JSON to whoever expects zero bytes.
_NEUTRAL_PADDING = 10
# No white space to a JSON reader, as 13, 10 and 9 are.
_TELLING_PADDING = 12
# Wrong guesses may be answered by chance in several ways, so a difference has to show more than once.
_CONFIRMATIONS = 2
# What differs from answer to answer and means nothing: request numbers, times, addresses in memory.
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
# What `guess_writings` tells from its kin is left out; not base64url: not every key has texts that are alike in both.
_ENCODINGS = (BASE64, HEX, BASE64_TWICE, BASE64_URL, HEX_UPPER)
#: Encodings that write the same where no character differs, and no `=` is needed.
BASE64_KIN = (BASE64, BASE64_URL, BASE64_URL_UNPADDED)


@dataclass(frozen=True, slots=True, order=True)
class AnswerKind:
    """Answers that say the same."""

    http_status: int
    #: The answer's own `status`, as text; "" where it is no JSON object.
    status: str
    #: Its `message`, with `…` for what varies; for what is no JSON object, why.
    message: str


class Meaning(StrEnum):
    """What a group of answers was found to mean, in plain words."""

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
    #: What they had in common or were told apart by, at most a few: `sign_separator = "|"`.
    examples: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What was learned."""

    #: None where no guess was understood. Its padding and encoding are the likeliest ones where it was `stopped`.
    dialect: RequestDialect | None
    #: What the gateway says of an order that it does not have; None where no guess was understood.
    not_found: AnswerKind | None
    #: Every answer there was, by what it means.
    groups: Sequence[AnswerGroup]
    #: Why it stopped before every guess was tried; "" where it did not.
    stopped: str


class Probe:
    """Asks one gateway, one request after the other."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        clock: Callable[[], datetime],
        pause: Callable[[], None],
        on_request: Callable[[str], None],
        most_requests: int,
    ) -> None:
        """`pause` is called between two requests. `on_request` is told of each what it tries, before it is sent.

        Of the settings' own dialect only key and iv are looked at: they are tried first. Raises `DialectInvalid`.
        """
        self._settings = settings
        self._hints = RequestDialect.from_settings(settings.dialect)
        self._transport = GatewayTransport(settings=settings)
        self._clock = clock
        self._pause = pause
        self._on_request = on_request
        self._most_requests = most_requests
        self._counts: Counter[AnswerKind] = Counter()
        self._examples: dict[AnswerKind, list[str]] = defaultdict(list)
        self._meanings: dict[AnswerKind, Meaning] = {}
        self._dialect: RequestDialect | None = None

    def run(self) -> ProbeResult:
        """Learn what can be learned; once. Raises a `CallFailed` where the gateway does not answer at all."""
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
        # Perhaps it decrypts before it checks the sign: then the args are found first, and the sign after them.
        signed = self._find_sign(RequestDialect(), _noise()) or self._find_sign_of_readable_args()
        self._dialect = self._find_cipher(signed) if signed else None
        if self._dialect:
            self._dialect = self._find_writing(self._dialect)

    def _find_sign(self, base: RequestDialect, args: str) -> RequestDialect | None:
        """`base` with the right sign. All questions have the same args, so that nothing else can make a difference."""
        refused = self._ask_with_wrong_sign(base, args)
        for guess in guess_signs(base):
            label = f"sign_separator = {guess.sign_separator!r}, sign_case = {guess.sign_case}"
            if self._ask(guess, label, args=args) == refused:
                continue
            if self._ask_with_wrong_sign(base, args) != refused:
                raise _Stopped("a wrong sign is no longer answered as it was: the gateway may want longer pauses")
            self._meanings[refused] = Meaning.SIGN_REFUSED
            return guess
        return None

    def _ask_with_wrong_sign(self, base: RequestDialect, args: str) -> AnswerKind:
        return self._ask(base, "a sign that is surely wrong", args=args, sign=secrets.token_hex(16))

    def _find_sign_of_readable_args(self) -> RequestDialect | None:
        unread = {self._ask(RequestDialect(), "random bytes as args", args=_noise())}
        for guess in self._guess_ciphers(RequestDialect()):
            _, args = _seal_new_order_no(_ORDER_NO_FIELD, self._settings.aes_key, guess, telling=False)
            kind = self._ask(guess, _describe(guess), args=args)
            if kind in unread:
                continue
            if signed := self._find_sign(guess, args):
                self._meanings |= dict.fromkeys(unread, Meaning.NOT_READ)
                return signed
            # Only another way of not being read, e.g. for want of a right padding.
            unread.add(kind)
        return None

    def _find_cipher(self, base: RequestDialect) -> RequestDialect | None:
        unread = {self._ask(base, "random bytes as args", args=_noise())}
        found = None
        # The base first: where the sign was found by args that could be read, it is what they were written in.
        for guess in sorted(self._guess_ciphers(base), key=lambda guess: guess != base):
            kind = self._ask(guess, _describe(guess))
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
        """The same with its true padding and encoding: what was understood before could be read with any of them."""
        for guess in guess_writings(understood):
            kind = self._ask(guess, _describe(guess), telling=True)
            if self._meanings.get(kind) is Meaning.NO_SUCH_ORDER:
                return guess
        return understood

    def _guess_ciphers(self, base: RequestDialect) -> Sequence[RequestDialect]:
        return guess_ciphers(base, self._settings.aes_key, hints=self._hints)

    def _answers_without_order_no(self, guess: RequestDialect, kind: AnswerKind) -> set[AnswerKind]:
        """One other answer than `kind` where the two come in turn every time; else `kind` among what came instead."""
        others = set()
        for _ in range(_CONFIRMATIONS):
            others.add(self._ask(guess, f"{_describe(guess)}, and no order number", field=_OTHER_FIELD))
            if len(others) > 1 or kind in others:
                break
            again = self._ask(guess, _describe(guess))
            if again != kind:
                return {kind, again, *others}
        return others

    def _ask(
        self,
        dialect: RequestDialect,
        label: str,
        *,
        field: str = _ORDER_NO_FIELD,
        telling: bool = False,
        args: str = "",
        sign: str = "",
    ) -> AnswerKind:
        if self._counts.total() == self._most_requests:
            raise _Stopped(f"{self._most_requests} requests were made, and no more are allowed")
        if self._counts:
            self._pause()
        self._on_request(label)
        method, ua, aes_key = RequestMethod.SINGLE_ORDER_QUERY, self._settings.ua, self._settings.aes_key
        order_no, sealed = ("", args) if args else _seal_new_order_no(field, aes_key, dialect, telling=telling)
        request_id = new_request_id()
        body = write_envelope(
            method,
            sealed,
            ua=ua,
            sign=sign or sign_request(ua=ua, key=aes_key.reveal(), method=method, args=sealed, dialect=dialect),
            request_id=request_id,
            timestamp=self._clock().timestamp(),
        )
        answer = self._transport.post(body, timeout_seconds=self._settings.timeout_seconds)
        kind = classify(answer, own_words=[word for word in (order_no, request_id) if word])
        self._counts[kind] += 1
        if len(self._examples[kind]) < _MOST_EXAMPLES:
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
    """It cannot go on; the message says why."""


def _seal_new_order_no(field: str, aes_key: Secret, dialect: RequestDialect, *, telling: bool) -> tuple[str, str]:
    """A number that no order has, and args with it under `field`.

    What is `telling` is read with its own padding and its own base64 only. Else either padding can read it, and in
    base64, where that is possible, every base64. Whether it is does not depend on `field`.
    """
    cipher = ArgsCipher(key=aes_key.reveal(), dialect=dialect)
    sent_iv = dialect.iv == SENT
    characters = _order_no_characters(sent_iv=sent_iv, telling=telling)
    in_one_alphabet = telling or dialect.encoding != BASE64 or not (sent_iv or _begins_alike_in_any_base64(cipher))
    while True:
        order_no = f"PROBE{secrets.token_hex(characters // 2)}"
        args = cipher.seal({field: order_no})
        if dialect.encoding not in BASE64_KIN or in_one_alphabet is _needs_one_alphabet(args):
            return order_no, args


def _begins_alike_in_any_base64(cipher: ArgsCipher) -> bool:
    # But for a sent iv the first block, 21 characters, is the same in every question about a field.
    return not any(_needs_one_alphabet(cipher.seal({field: ""})[:21]) for field in (_ORDER_NO_FIELD, _OTHER_FIELD))


def _needs_one_alphabet(args: str) -> bool:
    return any(character in args for character in "+/-_")


def _order_no_characters(*, sent_iv: bool, telling: bool) -> int:
    """How many characters after PROBE make the padding that is wanted, and the `=` that base64 ends with or has not."""
    padding = _TELLING_PADDING if telling else _NEUTRAL_PADDING
    sealed = 3 * _BLOCK
    while True:
        written = sealed - padding - _BLOCK * sent_iv
        if written > _LEAST_CHARACTERS + 12 and (sealed % 3 != 0) is telling:
            return written - _LEAST_CHARACTERS
        sealed += _BLOCK


def _noise() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _describe(guess: RequestDialect) -> str:
    iv = f" with iv = {guess.iv}" if guess.iv else ""
    return f"key = {guess.key}, {guess.mode}{iv}, {guess.padding}, {guess.encoding}"


def classify(answer: HttpAnswer, *, own_words: Sequence[str]) -> AnswerKind:
    """The kind of an answer. `own_words` are those of the request, e.g. its order number, which it may repeat."""
    try:
        fields = answer.read_fields()
    except OutcomeUnknown as error:
        return AnswerKind(answer.status, "", str(error))
    message = to_text(fields.get("message"))
    for word in own_words:
        message = message.replace(word, "…")
    return AnswerKind(answer.status, to_text(fields.get("status")), _VARYING.sub("…", message)[:_LONGEST_MESSAGE])


def guess_signs(base: RequestDialect) -> Iterator[RequestDialect]:
    """`base` with every separator and case of the sign."""
    for separator, case in product(_SEPARATORS, SignCase):
        yield replace(base, sign_separator=separator, sign_case=case)


def guess_ciphers(base: RequestDialect, aes_key: Secret, *, hints: RequestDialect) -> Sequence[RequestDialect]:
    """`base` with every key, mode, iv and encoding that this key can be used with, and with PKCS7.

    What `hints`, the settings' own dialect, says of key and iv comes first. Then the fewer unlikely choices one makes,
    the sooner it comes: those with one unlikely choice before those with two. No AES key and iv are tried twice.
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


def guess_writings(understood: RequestDialect) -> Iterator[RequestDialect]:
    """`understood` with every padding, and with the encodings that look like its own, likeliest first."""
    encodings = BASE64_KIN if understood.encoding in BASE64_KIN else (understood.encoding,)
    for padding, encoding in product(Padding, encodings):
        yield replace(understood, padding=padding, encoding=encoding)


def _with_cipher(base: RequestDialect, key: str, iv: str) -> RequestDialect:
    mode = Mode.CBC if iv else Mode.ECB
    return replace(base, key=key, mode=mode, iv=iv, padding=Padding.PKCS7, encoding=BASE64)


def _distinct(guesses: Iterable[RequestDialect], aes_key: Secret) -> Sequence[RequestDialect]:
    """Those that the key can be used with, and of those with the same AES key and iv the first."""
    found: dict[str, RequestDialect] = {}
    for guess in guesses:
        try:
            cipher = ArgsCipher(key=aes_key.reveal(), dialect=guess)
        except KeyUnusable:
            continue
        # Two blocks: of one alone, ECB and an iv of zeros make the same.
        found.setdefault(cipher.encrypt(bytes(16), iv=bytes(16)), guess)
    return list(found.values())
