import base64
from typing import Any

import pytest

from service.gateway.bodies import read_object
from service.gateway.cipher import ArgsCipher, Mode, Padding, RequestDialect, SignCase
from service.gateway.json_dialects import PHP, PHP_SLASHES, PHP_UNICODE, PHP_UNICODE_SLASHES, UNICODE
from service.gateway.requests import REQUEST_ENVELOPE, sign_request, verify_request
from tests.support.gateway import load_vectors

#: Signs that need not be built; asserted to differ from ours.
EXEMPT_SIGNS = {"sign-lightapi-family": "the light-api form of the sign"}

WRITERS = {0: PHP, 64: PHP_SLASHES, 256: PHP_UNICODE, 320: PHP_UNICODE_SLASHES}
AES_NAMES: dict[str, dict[str, Any]] = {
    "aes-128-ecb-b64": {},
    "aes-192-ecb-b64": {},
    "aes-256-ecb-b64": {},
    "aes-128-ecb-hex": {"encoding": "hex"},
    "aes-128-ecb-b64url": {"encoding": "base64url-unpadded"},
    "aes-128-ecb-b64url-pad": {"encoding": "base64url"},
    "aes-128-ecb-double-b64": {"encoding": "base64 | base64"},
    "aes-128-ecb-zeropad": {"padding": Padding.ZERO},
    "aes-128-cbc-ivprefix": {"mode": Mode.CBC, "iv": "sent"},
    "aes-128-cbc-iv0102-b64": {"mode": Mode.CBC, "iv": "'0102030405060708'"},
    "aes-128-ecb-key-hex": {"key": "aes_key | from hex"},
    "aes-128-ecb-key-md5raw": {"key": "aes_key | md5"},
    "aes-128-ecb-key-sha1prng": {"key": "aes_key | sha1prng 16"},
    "aes-256-ecb-key-b64": {"key": "aes_key | from base64"},
    "aes-256-ecb-key-md5hex": {"key": "aes_key | md5 | hex"},
    "aes-256-ecb-key-sha256": {"key": "aes_key | sha256"},
}
#: Keys that PHP cuts or fills with NUL to the cipher's length, by case.
KEY_LENGTHS = {
    "key32-aes128-truncated": "aes_key | first 16",
    "key10-aes128-nulpadded": "aes_key | fill 16",
    "key16-aes256-nulpadded": "aes_key | fill 32",
}


CASES = [pytest.param(case, id=case["case"]) for case in load_vectors("request")]


def _dialect(case: Any) -> RequestDialect:
    settings = dict(AES_NAMES[case["dialect"]])
    if case["id"] in KEY_LENGTHS:
        settings["key"] = KEY_LENGTHS[case["id"]]
    flags = case["dialect_flags"].get("json_flags_int")
    writer = UNICODE if flags is None else WRITERS[flags]
    return RequestDialect(json=writer.name, **settings)


def _sent_iv(case: Any) -> Any:
    return base64.b64decode(case["expected_ciphertext"])[:16] if _dialect(case).iv == "sent" else None


@pytest.mark.parametrize("case", CASES)
def test_args_are_encrypted_as_the_real_runtime_does(case: Any) -> None:
    cipher = ArgsCipher(key=case["key"], dialect=_dialect(case))

    assert cipher.encrypt(case["expected_plaintext"], iv=_sent_iv(case)) == case["expected_ciphertext"]


@pytest.mark.parametrize("case", CASES)
def test_args_are_written_as_the_real_runtime_does(case: Any) -> None:
    cipher = ArgsCipher(key=case["key"], dialect=_dialect(case))
    args = cipher.open(case["expected_ciphertext"])

    sealed = cipher.seal(dict(reversed(list(args.items()))))

    assert cipher.decrypt(sealed) == case["expected_plaintext"]


@pytest.mark.parametrize("case", CASES)
def test_the_envelope_is_signed_as_the_real_runtime_does(case: Any) -> None:
    envelope = REQUEST_ENVELOPE.read(
        {**read_object(case["envelope_json"].decode()).values, "method": "single-withhold"}
    )
    method = read_object(case["envelope_json"].decode()).values["method"]
    assert isinstance(method, str)
    assert envelope.args == case["expected_ciphertext"]
    dialect = RequestDialect(sign_case=SignCase(case["dialect_flags"]["md5_case"]))
    sign = sign_request(ua=envelope.ua, key=case["key"], method=method, args=envelope.args, dialect=dialect)

    assert (sign == case["expected_sign"]) is (case["id"] not in EXEMPT_SIGNS)
    verify_request(sign=sign, ua=envelope.ua, key=case["key"], method=method, args=envelope.args, dialect=dialect)
