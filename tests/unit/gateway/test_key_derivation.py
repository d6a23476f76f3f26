from hashlib import md5, sha1, sha256, sha512
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.errors import DialectInvalid, KeyUnusable
from service.gateway.key_derivation import parse_iv, parse_key

GIVEN = b"0123456789abcdef"
MD5 = md5(GIVEN).hexdigest()
SHA256 = sha256(GIVEN).hexdigest()
#: Made by OpenJDK 17: KeyGenerator.getInstance("AES"), its SecureRandom a SHA1PRNG with the key text as its seed.
JAVA = {
    "0123456789abcdef": "75291f3a188a427f873fb88fbc37ce5ce150d01c0efbb700776b4839505e567f",
    "1234567890abcdef": "c7afed423930624f49f2d5686f05a01b49d4aedc123a6585c3d3febe6c1e19d7",
    "c53c0a357ac74e6e95004acde339db5e": "61159d79017748ff91e24e785d8801c6974cad36ed1a12e2d8f69ab4bee90df3",
    "密钥": "53dc8903cd7d3d9409f3396dec072061db7b4fb2ddf7696584a0f525ad83f9d2",
    "a": "667f407de7c6ad07358fa38daed7828a72014b4e621d7140210c8cf1565a8f02",
}
#: By the same Java, sha256 over the first 64 bytes of its generator after each of the seeds "key 0" to "key 299".
JAVA_GENERATOR = "772eb7a67b5ced19bdf3446c5faf6d52b7ac9082bb642671cff4f91422d51aea"


def made(line: Any, given: Any = GIVEN) -> Any:
    return parse_key(line).derive({"aes_key": given})


def made_iv(line: Any, *, key: Any = b"k" * 32) -> Any:
    return parse_iv(line).derive({"aes_key": GIVEN, "key": key, "zeros": bytes(16)})


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("text", JAVA)
def test_javas_generator_makes_the_key_that_java_makes(text: Any, length: int) -> None:
    assert made(f"aes_key | sha1prng {length}", text.encode()).hex() == JAVA[text][: 2 * length]


def test_javas_generator_goes_on_as_java_does() -> None:
    made_by_all = b"".join(made("aes_key | sha1prng 64", f"key {number}".encode()) for number in range(300))
    assert sha256(made_by_all).hexdigest() == JAVA_GENERATOR


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("aes_key", GIVEN),
        ("  aes_key  ", GIVEN),
        ("aes_key | md5", md5(GIVEN).digest()),
        ("aes_key|md5|hex", MD5.encode()),
        ("aes_key | md5 | hex | upper", MD5.upper().encode()),
        ("aes_key | md5 | hex | upper | lower", MD5.encode()),
        ("aes_key | md5 | hex | first 16", MD5[:16].encode()),
        ("aes_key | md5 | hex | skip 8 | first 16", MD5[8:24].encode()),
        ("aes_key | md5 | hex | upper | last 16", MD5.upper()[-16:].encode()),
        ("aes_key | sha256 | hex | upper | first 32", SHA256.upper()[:32].encode()),
        ("aes_key | sha1 | first 16", sha1(GIVEN).digest()[:16]),
        ("aes_key | sha512 | first 32", sha512(GIVEN).digest()[:32]),
        ("aes_key | fill 32", GIVEN + bytes(16)),
        ("aes_key | fill 16", GIVEN),
        ("aes_key | fill 8", GIVEN),
        ("aes_key | reverse", GIVEN[::-1]),
        ("aes_key | hex | from hex", GIVEN),
        ("aes_key | base64 | from base64", GIVEN),
    ],
)
def test_each_step_takes_what_the_one_before_it_made(line: str, value: Any) -> None:
    assert made(line) == value


@pytest.mark.parametrize("written", ["-_-_", "+/+/", "+/8=", "-_8", "+/8"])
def test_base64_is_read_in_either_alphabet_with_and_without_padding(written: str) -> None:
    assert made("aes_key | from base64", written.encode())[:1] == b"\xfb"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("zeros", bytes(16)),
        ("key | first 16", b"k" * 16),
        ("aes_key", GIVEN),
        ("aes_key | md5", md5(GIVEN).digest()),
        ("aes_key | reverse | first 16", GIVEN[::-1]),
        ("aes_key | last 8 | fill 16", GIVEN[-8:] + bytes(8)),
        ("'1234567890123456'", b"1234567890123456"),
        ('"it\'s | 16 bytes!"', b"it's | 16 bytes!"),
        ("'31323334353637383930313233343536' | from hex", b"1234567890123456"),
        ("'' | fill 16", bytes(16)),
    ],
)
def test_an_iv_is_made_of_either_key_or_of_a_text_that_was_handed_out(line: str, value: Any) -> None:
    assert made_iv(line) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("aes_key | mdd5", "key: 'mdd5' is not a step; did you mean 'md5'. Steps are md5, sha1, "),
        ("aes_key | sha-256", "'sha-256' is not a step; did you mean 'sha256'"),
        ("aes_key | SHA256", "'SHA256' is not a step; did you mean 'sha256'"),
        ("AES_KEY | md5", "'AES_KEY' is not a source; did you mean 'aes_key'"),
        ("aes_key | uper", "'uper' is not a step; did you mean 'upper'"),
        ("aes_key | form hex", "'form hex' is not a step; did you mean 'from hex'"),
        ("aes_key | fist 16", "'fist 16' is not a step; did you mean 'first'"),
        ("aes_key | scrypt", "'scrypt' is not a step. Steps are md5, .*first N, last N, skip N, fill N, sha1prng N"),
        ("aeskey | md5", "key: 'aeskey' is not a source; did you mean 'aes_key'. Sources are aes_key"),
        ("md5 | hex", "'md5' is a step, and a source comes before it: aes_key | md5"),
        ("zeros", "the first word .5 characters. is not a source"),
        ("'quoted'", "a text in quotes is not a source here; expected aes_key"),
        ("aes_key | first", "'first' needs a number of bytes after it, 1 to 64: first 16"),
        ("aes_key | first 0", "'first' needs a number of bytes"),
        ("aes_key | first 65", "'first' needs a number of bytes"),
        ("aes_key | first -1", "'first' needs a number of bytes"),
        ("aes_key | first 16 16", "'first' needs a number of bytes"),
        ("aes_key | first \uff11\uff16", "'first' needs a number of bytes"),
        ("aes_key | md5 hex", "nothing comes after 'md5' but a `|` and the next step"),
        ("aes_key md5", "the source stands alone, and a `|` comes before each step"),
        ("aes_key | md5 | upper", "'upper' works on a text, but what is before it is bytes: add `hex`"),
        ("aes_key | md5 | from hex", "'from hex' works on a text"),
        ("aes_key | fill 16 | upper", "'upper' works on a text"),
        ("aes_key | 'md5'", "a text in quotes is a source, and comes first"),
        ("aes_key | ", "a word is missing"),
        ("| md5", "a word is missing"),
        ("", "a word is missing"),
        ("aes_key | md5 '", "a quote is not closed"),
    ],
)
def test_an_invalid_line_is_refused_with_the_nearest_known_step(line: str, message: str) -> None:
    with pytest.raises(DialectInvalid, match=message):
        parse_key(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sent | md5", "iv: 'sent' stands alone"),
        (
            "send",
            "'send' is not a source; did you mean 'sent'. Sources are key, aes_key, zeros, sent, and a text in quotes",
        ),
        ("zeros | upper", "'upper' works on a text"),
        ("key | upper", "'upper' works on a text"),
    ],
)
def test_an_invalid_iv_is_refused(line: str, message: str) -> None:
    with pytest.raises(DialectInvalid, match=message):
        parse_iv(line)


@pytest.mark.parametrize("secret", ["Xk29-Qq81-Zz77-Ab", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "Qw3!rT5&yU7*iO9("])
def test_a_secret_in_place_of_a_step_is_not_quoted(secret: str) -> None:
    for line in (secret, f"aes_key | {secret.upper()}", f"'{secret}", f"'{secret}' {secret}"):
        with pytest.raises(DialectInvalid) as refused:
            parse_iv(line)
        assert secret.lower() not in str(refused.value).lower()
    assert secret not in repr(parse_iv(f"'{secret}'"))


@pytest.mark.parametrize("line", ["aes_key | from hex", "aes_key | from base64"])
def test_a_value_that_a_step_cannot_decode_is_not_quoted(line: str) -> None:
    with pytest.raises(KeyUnusable, match="cannot decode what is before it") as refused:
        made(line, b"no!such")
    assert "no!such" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@given(st.text() | st.text(alphabet="aes_key md5 hex|first 16'\""))
def test_no_line_raises_anything_but_a_dialect_error(line: Any) -> None:
    for parse in (parse_key, parse_iv):
        try:
            parse(line)
        except DialectInvalid:
            continue
