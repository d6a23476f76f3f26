from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.cipher import ArgsCipher, KeySorting, Mode, Padding, RequestDialect, SignCase
from service.gateway.errors import CipherError, DialectInvalid, KeyUnusable

KEYS = {
    "aes_key": "1234567890abcdef",
    "aes_key | from hex": "00112233445566778899AABBccddeeff",
    "aes_key | from base64": "KpdRbDVLaISM29j1SiJqClWyHtE44getbFy7nACqWuo=",
    "aes_key | md5 | hex": "any key",
    "aes_key | md5": "any key",
    "aes_key | sha256": "any key",
    "aes_key | first 16": "c53c0a357ac74e6e95004acde339db5e",
    "aes_key | sha1prng 24": "any key",
    "aes_key | fill 32": "any key",
}
IVS = ["", "key | first 16", "zeros", "sent", "aes_key | md5", "'1234567890123456'"]
ENCODINGS = ["base64", "base64url", "base64url-unpadded", "hex", "hex-upper", "base64 | base64", "hex | base64url"]
CIPHERS = [
    ArgsCipher(
        key=KEYS[key],
        dialect=RequestDialect(key=key, mode=Mode.CBC if iv else Mode.ECB, iv=iv, padding=padding, encoding=encoding),
    )
    for iv, key, padding, encoding in product(IVS, KEYS, Padding, ENCODINGS)
]
SECRET = "my-secret-key-99"


@given(
    cipher=st.sampled_from(CIPHERS), plaintext=st.binary(min_size=1, max_size=100).filter(lambda text: text[-1] != 0)
)
def test_whatever_is_encrypted_is_decrypted_in_every_dialect(cipher: Any, plaintext: Any) -> None:
    assert cipher.decrypt(cipher.encrypt(plaintext)) == plaintext


@given(
    cipher=st.sampled_from(CIPHERS),
    args=st.dictionaries(
        st.text(alphabet=st.characters(exclude_categories=["Cs"])),
        st.text(alphabet=st.characters(exclude_categories=["Cs"])),
        min_size=1,
    ),
)
def test_whatever_is_sealed_is_opened_in_every_dialect(cipher: Any, args: Any) -> None:
    assert cipher.open(cipher.seal(args)) == args


@given(text=st.text(max_size=80) | st.text(alphabet="abcdefABCDEF0189+/-_=", max_size=80))
def test_no_ciphertext_raises_anything_but_a_cipher_error(text: Any) -> None:
    for encoding in ENCODINGS:
        cipher = ArgsCipher(key=SECRET, dialect=RequestDialect(encoding=encoding))
        with pytest.raises(CipherError):
            cipher.open(text)


def test_each_sent_iv_is_another() -> None:
    cipher = ArgsCipher(key=SECRET, dialect=RequestDialect(mode=Mode.CBC, iv="sent"))

    assert cipher.encrypt(b"x") != cipher.encrypt(b"x")


@pytest.mark.parametrize(
    ("sorting", "written"),
    [
        (KeySorting.TOP_LEVEL, b'{"a":"1","b":{"z":"2","y":"3"}}'),
        (KeySorting.RECURSIVE, b'{"a":"1","b":{"y":"3","z":"2"}}'),
        (KeySorting.NONE, b'{"b":{"z":"2","y":"3"},"a":"1"}'),
    ],
)
def test_the_keys_are_sorted_as_the_dialect_says(sorting: Any, written: bytes) -> None:
    cipher = ArgsCipher(key=SECRET, dialect=RequestDialect(key_sorting=sorting))

    assert cipher.decrypt(cipher.seal({"b": {"z": "2", "y": "3"}, "a": "1"})) == written


def test_zero_padding_adds_nothing_to_a_full_block() -> None:
    cipher = ArgsCipher(key=SECRET, dialect=RequestDialect(padding=Padding.ZERO, encoding="hex"))

    assert len(cipher.encrypt(b"x" * 16)) == 32


def test_hex_is_read_in_either_case_and_base64_with_or_without_padding() -> None:
    hexadecimal = ArgsCipher(key=SECRET, dialect=RequestDialect(encoding="hex"))
    base64 = ArgsCipher(key=SECRET, dialect=RequestDialect())

    assert hexadecimal.decrypt(hexadecimal.encrypt(b"x").upper()) == b"x"
    assert base64.decrypt(base64.encrypt(b"x").rstrip("=")) == b"x"


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        (SECRET[:10], "aes_key", r"key = 'aes_key' makes 10 bytes of an aes_key of 10; AES takes 16, 24 or 32"),
        (SECRET, "aes_key | from hex", r"key = 'aes_key \| from hex': 'from hex' cannot decode what is before it"),
        (SECRET[:9], "aes_key | from base64", r"'from base64' cannot decode what is before it"),
        (SECRET[:10], "aes_key | first 16", r"makes 10 bytes of an aes_key of 10"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_and_not_quoted(key: Any, line: str, message: str) -> None:
    with pytest.raises(KeyUnusable, match=message) as refused:
        ArgsCipher(key=key, dialect=RequestDialect(key=line))

    assert key not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("iv", "message"),
    [
        ("aes_key | md5 | hex", "iv: it makes 32 bytes; an iv has 16, so add e.g. `first 16`"),
        (f"'{SECRET}!'", "iv: it makes 17 bytes"),
        (f"'{SECRET}' | from hex", "iv: 'from hex' cannot decode what is before it"),
    ],
)
def test_an_iv_that_does_not_fit_is_refused_and_not_quoted(iv: str, message: str) -> None:
    with pytest.raises(KeyUnusable, match=message) as refused:
        ArgsCipher(key=SECRET, dialect=RequestDialect(mode=Mode.CBC, iv=iv))

    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_neither_the_key_nor_a_given_iv_is_in_a_repr() -> None:
    dialect = RequestDialect(mode=Mode.CBC, iv="'iv-of-16-letters'")
    cipher = ArgsCipher(key=SECRET, dialect=dialect)

    assert SECRET not in repr(cipher)
    assert "letters" not in repr(cipher) + repr(dialect)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~~~~", "args are not written in base64"),
        ("QUJD", "the ciphertext has 3 bytes, not a multiple of 16"),
        ("", "the ciphertext has 0 bytes"),
        ("QUFBQUFBQUFBQUFBQUFBQQ==", "the padding is not PKCS7: another key, mode or padding was used"),
    ],
)
def test_an_error_names_the_step_that_failed(text: str, message: str) -> None:
    with pytest.raises(CipherError, match=message):
        ArgsCipher(key=SECRET, dialect=RequestDialect()).decrypt(text)


@pytest.mark.parametrize("plaintext", [b"no object of yours", b"\xff\xfe", b'{"a":1,"a":2}'])
def test_an_error_about_the_plaintext_does_not_show_it(plaintext: bytes) -> None:
    cipher = ArgsCipher(key=SECRET, dialect=RequestDialect())

    with pytest.raises(CipherError, match="the decrypted args are no") as refused:
        cipher.open(cipher.encrypt(plaintext))

    assert "yours" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_dialect_is_read_from_settings() -> None:
    dialect = RequestDialect.from_settings({"mode": "cbc", "iv": "zeros", "json": "go", "sign_case": "upper"})

    assert dialect == RequestDialect(mode=Mode.CBC, iv="zeros", json="go", sign_case=SignCase.UPPER)
    assert RequestDialect.from_settings({}) == RequestDialect()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"modus": "ecb"}, "'modus' is not a setting of a request dialect; allowed are json, key_sorting, mode,"),
        ({"mode": "cfb"}, "mode = 'cfb' is not known; allowed are ecb, cbc"),
        ({"mode": "cbc"}, "iv: missing; mode = 'cbc' needs one, most often iv = 'key | first 16'"),
        ({"iv": "zeros"}, "iv: mode = 'ecb' has none; leave it out, or set mode = 'cbc'"),
        ({"json": "perl"}, "json = 'perl' is not a JSON writer; allowed are php,"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(table: dict[str, Any], message: str) -> None:
    with pytest.raises(DialectInvalid, match=message):
        RequestDialect.from_settings(table)
