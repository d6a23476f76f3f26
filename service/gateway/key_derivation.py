"""Key derivation: a small language for how an AES key or an iv is derived from the key that a gateway hands out.

    aes_key | md5 | hex | upper | first 16

The line starts with a source. Each step takes the output of the one before. All values are bytes: a text is its
UTF-8, and `first 16` means 16 bytes. docs/gateway.md explains every source and step.
"""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import md5, sha1, sha256, sha512

from service.gateway.errors import DialectInvalid, KeyUnusable

#: The key as the gateway handed it out: the setting of this name.
AES_KEY = "aes_key"
#: The AES key that the dialect's `key` derives; for ivs.
KEY = "key"
#: 16 zero bytes; for ivs.
ZEROS = "zeros"
#: 16 random bytes, new for each request and sent before its ciphertext; for ivs. No step may follow.
SENT = "sent"

_MAX_BYTES = 64
_TOKEN = re.compile(r"""\s*(?:(?P<quote>["'])(?P<text>.*?)(?P=quote)|(?P<bar>\|)|(?P<word>[^\s|"']+))""")
# Anything else may be a key that was pasted in place of a step, and errors do not quote it.
_LIKE_A_STEP = re.compile(r"[a-z0-9_ -]{1,16}")


def _from_base64(text: bytes) -> bytes:
    # In either alphabet, with or without the `=`.
    unpadded = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(unpadded + b"=" * (-len(unpadded) % 4), validate=True)


def _sha1prng(seed: bytes, count: int) -> bytes:
    """The first bytes of Java's `SecureRandom.getInstance("SHA1PRNG")` after `setSeed(seed)`.

    Source: OpenJDK, sun.security.provider.SecureRandom. Its bytes and its carry are signed.
    """
    state = bytearray(sha1(seed).digest())
    made = b""
    while len(made) < count:
        block = sha1(state).digest()
        made += block
        carried = 1
        before = bytes(state)
        for place, byte in enumerate(block):
            total = _signed(state[place]) + _signed(byte) + carried
            state[place] = total & 0xFF
            carried = total >> 8
        if state == before:
            state[0] = (state[0] + 1) & 0xFF
    return made[:count]


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


@dataclass(frozen=True, slots=True)
class _Step:
    """One step. `takes_text` steps work on characters, so the value before them must be a text."""

    apply: Callable[[bytes, int], bytes]
    takes_text: bool = False
    #: None if a text stays a text and bytes stay bytes.
    gives_text: bool | None = None


#: Steps with a number of bytes.
_COUNTED = {
    "first": _Step(lambda value, count: value[:count]),
    "last": _Step(lambda value, count: value[-count:]),
    "skip": _Step(lambda value, count: value[count:]),
    # PHP's openssl_encrypt does this silently with a key that is too short for the cipher.
    "fill": _Step(lambda value, count: value.ljust(count, b"\0"), gives_text=False),
    "sha1prng": _Step(_sha1prng, gives_text=False),
}
_PLAIN = {
    "md5": _Step(lambda value, _: md5(value).digest(), gives_text=False),
    "sha1": _Step(lambda value, _: sha1(value).digest(), gives_text=False),
    "sha256": _Step(lambda value, _: sha256(value).digest(), gives_text=False),
    "sha512": _Step(lambda value, _: sha512(value).digest(), gives_text=False),
    "hex": _Step(lambda value, _: value.hex().encode(), gives_text=True),
    "base64": _Step(lambda value, _: base64.b64encode(value), gives_text=True),
    "from hex": _Step(lambda value, _: binascii.unhexlify(value), takes_text=True, gives_text=False),
    "from base64": _Step(lambda value, _: _from_base64(value), takes_text=True, gives_text=False),
    "upper": _Step(lambda value, _: value.upper(), takes_text=True),
    "lower": _Step(lambda value, _: value.lower(), takes_text=True),
    "reverse": _Step(lambda value, _: value[::-1]),
}
_STEPS = {**_PLAIN, **_COUNTED}


@dataclass(frozen=True, slots=True)
class KeyDerivation:
    """A source and the steps after it."""

    #: The name of a source; "" for a text in quotes.
    source: str
    #: The text in quotes, in UTF-8.
    text: bytes
    #: Names and numbers of bytes (0 for none).
    steps: tuple[tuple[str, int], ...]

    def __repr__(self) -> str:
        return f"KeyDerivation(source={self.source!r}, steps={self.steps!r})"

    def derive(self, sources: Mapping[str, bytes]) -> bytes:
        """Derive the value from the sources' values.

        Raises `KeyUnusable`, which quotes no value, if a `from ...` step cannot decode its input.
        """
        value = sources[self.source] if self.source else self.text
        for name, count in self.steps:
            try:
                value = _STEPS[name].apply(value, count)
            except ValueError:
                # Without its cause, which quotes the value.
                raise KeyUnusable(f"{name!r} cannot decode what is before it") from None
        return value


def parse_key(line: str) -> KeyDerivation:
    """Parse a `key` setting. Raises `DialectInvalid`, which names what is wrong and the likeliest correction."""
    return _parse(line, setting="key", sources=(AES_KEY,), takes_quoted=False)


def parse_iv(line: str) -> KeyDerivation:
    """Parse an `iv` setting. Raises `DialectInvalid`, which never quotes a text in quotes."""
    return _parse(line, setting="iv", sources=(KEY, AES_KEY, ZEROS, SENT), takes_quoted=True)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    quoted: bool


def _parse(line: str, *, setting: str, sources: Collection[str], takes_quoted: bool) -> KeyDerivation:
    first, *others = _split(line, setting)
    source = _read_source(first, setting, sources, takes_quoted=takes_quoted)
    is_text = source.quoted or source.text == AES_KEY
    steps = []
    for tokens in others:
        name, count = _read_step(tokens, setting)
        step = _STEPS[name]
        if step.takes_text and not is_text:
            raise DialectInvalid(f"{setting}: {name!r} works on a text, but what is before it is bytes: add `hex`")
        is_text = is_text if step.gives_text is None else step.gives_text
        steps.append((name, count))
    if steps and source.text == SENT and not source.quoted:
        raise DialectInvalid(f"{setting}: {SENT!r} stands alone: the random bytes are sent as they are")
    text = source.text.encode("utf-8", "surrogateescape") if source.quoted else b""
    return KeyDerivation(source="" if source.quoted else source.text, text=text, steps=tuple(steps))


def _split(line: str, setting: str) -> list[list[_Token]]:
    parts: list[list[_Token]] = [[]]
    at = 0
    rest = line.rstrip()
    while at < len(rest):
        match = _TOKEN.match(rest, at)
        if match is None:
            raise DialectInvalid(f"{setting}: a quote is not closed")
        at = match.end()
        if match["bar"]:
            parts.append([])
        else:
            quoted = match["quote"] is not None
            parts[-1].append(_Token(match["text"] if quoted else match["word"], quoted))
    if not all(parts):
        raise DialectInvalid(f"{setting}: a word is missing: write it as e.g. {AES_KEY} | md5 | hex")
    return parts


def _read_source(tokens: list[_Token], setting: str, sources: Collection[str], *, takes_quoted: bool) -> _Token:
    [source, *more] = tokens
    allowed = f"{', '.join(sources)}{', and a text in quotes' if takes_quoted else ''}"
    if source.quoted and not takes_quoted:
        raise DialectInvalid(f"{setting}: a text in quotes is not a source here; expected {allowed}")
    if not source.quoted and source.text not in sources:
        likeliest = get_close_matches(source.text.lower(), sources, n=1)
        if likeliest:
            found = f"{source.text!r} is not a source; did you mean {likeliest[0]!r}?"
        elif source.text in _STEPS:
            found = f"{source.text!r} is a step, and a source comes before it: {AES_KEY} | {source.text}."
        else:
            found = f"the first word ({len(source.text)} characters) is not a source."
        raise DialectInvalid(f"{setting}: {found} Sources are {allowed}")
    if more:
        raise DialectInvalid(f"{setting}: the source stands alone, and a `|` comes before each step")
    return source


def _read_step(tokens: list[_Token], setting: str) -> tuple[str, int]:
    if any(token.quoted for token in tokens):
        raise DialectInvalid(f"{setting}: a text in quotes is a source, and comes first")
    words = [token.text for token in tokens]
    text = " ".join(words)
    if text in _PLAIN:
        return text, 0
    name, counts = words[0], words[1:]
    if name in _COUNTED:
        if len(counts) != 1 or not re.fullmatch(r"[0-9]{1,2}", counts[0]) or not 1 <= int(counts[0]) <= _MAX_BYTES:
            raise DialectInvalid(f"{setting}: {name!r} needs a number of bytes after it, 1 to {_MAX_BYTES}: {name} 16")
        return name, int(counts[0])
    if name in _PLAIN:
        raise DialectInvalid(f"{setting}: nothing comes after {name!r} but a `|` and the next step")
    likeliest = get_close_matches(text.lower(), _STEPS, n=1) or get_close_matches(name.lower(), _STEPS, n=1)
    found = repr(text) if likeliest or _LIKE_A_STEP.fullmatch(text) else f"a word of {len(text)} characters"
    hint = f"; did you mean {likeliest[0]!r}?" if likeliest else "."
    counted = ", ".join(f"{known} N" for known in _COUNTED)
    raise DialectInvalid(f"{setting}: {found} is not a step{hint} Steps are {', '.join(_PLAIN)}, {counted}")
