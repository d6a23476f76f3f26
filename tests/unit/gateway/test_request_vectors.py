import base64
from itertools import product

import pytest

from service.gateway.cipher import ArgsCipher
from service.gateway.errors import KeyUnusable
from service.gateway.json_writers import PHP, PHP_SLASHES, PHP_UNICODE, PHP_UNICODE_SLASHES, UNICODE
from service.gateway.request_dialect import Encoding, KeyForm, Mode, Padding, RequestDialect
from service.gateway.schemas import REQUEST_ENVELOPE
from service.gateway.signature import sign_request, verify_request
from service.gateway.tokens import read_object
from tests.support.vectors import load_vectors

#: Ciphers that need not be built, by case; each is asserted to be none of ours.
EXEMPT_CIPHERS = {
    "withhold-aes-128-ecb-double-b64": "base64 of base64",
    "withhold-aes-128-cbc-iv0102-b64": "a fixed iv of 0102030405060708",
    "withhold-aes-128-ecb-key-sha1prng": "a key made by Java's SHA1PRNG",
    "query-aes-128-ecb-key-sha1prng": "a key made by Java's SHA1PRNG",
    "key10-aes128-nulpadded": "a key filled with NUL",
    "key16-aes256-nulpadded": "a key filled with NUL",
}
#: Signs that need not be built; asserted to differ from ours.
EXEMPT_SIGNS = {"sign-lightapi-family": "the light-api form of the sign"}

WRITERS = {0: PHP, 64: PHP_SLASHES, 256: PHP_UNICODE, 320: PHP_UNICODE_SLASHES}
AES_NAMES = {
    "aes-128-ecb-b64": {},
    "aes-192-ecb-b64": {},
    "aes-256-ecb-b64": {},
    "aes-128-ecb-hex": {"encoding": Encoding.HEX},
    "aes-128-ecb-b64url": {"encoding": Encoding.BASE64_URL_UNPADDED},
    "aes-128-ecb-b64url-pad": {"encoding": Encoding.BASE64_URL},
    "aes-128-ecb-zeropad": {"padding": Padding.ZERO},
    "aes-128-cbc-ivprefix": {"mode": Mode.CBC_IV_SENT},
    "aes-128-ecb-key-hex": {"key_form": KeyForm.HEX},
    "aes-128-ecb-key-md5raw": {"key_form": KeyForm.MD5_RAW},
    "aes-256-ecb-key-b64": {"key_form": KeyForm.BASE64},
    "aes-256-ecb-key-md5hex": {"key_form": KeyForm.MD5_HEX},
    "aes-256-ecb-key-sha256": {"key_form": KeyForm.SHA256},
}


def _cases(*, exempt):
    return [
        pytest.param(case, id=case["case"])
        for case in load_vectors("request")
        if (case["id"] in EXEMPT_CIPHERS) is exempt
    ]


def _dialect(case):
    settings = dict(AES_NAMES[case["dialect"]])
    if case["id"] == "key32-aes128-truncated":
        settings["key_form"] = KeyForm.FIRST_16
    flags = case["dialect_flags"].get("json_flags_int")
    writer = UNICODE if flags is None else WRITERS[flags]
    return RequestDialect(json=writer.name, **settings)


def _sent_iv(case):
    return base64.b64decode(case["expected_ciphertext"])[:16] if _dialect(case).mode is Mode.CBC_IV_SENT else None


@pytest.mark.parametrize("case", _cases(exempt=False))
def test_args_are_encrypted_as_the_real_runtime_does(case):
    cipher = ArgsCipher(key=case["key"], dialect=_dialect(case))

    assert cipher.encrypt(case["expected_plaintext"], iv=_sent_iv(case)) == case["expected_ciphertext"]


@pytest.mark.parametrize("case", _cases(exempt=False))
def test_args_are_written_as_the_real_runtime_does(case):
    cipher = ArgsCipher(key=case["key"], dialect=_dialect(case))
    args = cipher.open(case["expected_ciphertext"])

    sealed = cipher.seal(dict(reversed(args.items())))

    assert cipher.decrypt(sealed) == case["expected_plaintext"]


@pytest.mark.parametrize("case", load_vectors("request"), ids=lambda case: case["case"])
def test_the_envelope_is_signed_as_the_real_runtime_does(case):
    envelope = REQUEST_ENVELOPE.read(
        {**read_object(case["envelope_json"].decode()).values, "method": "single-withhold"}
    )
    method = read_object(case["envelope_json"].decode()).values["method"]
    assert envelope.args == case["expected_ciphertext"]
    sign = sign_request(
        ua=envelope.ua,
        key=case["key"],
        method=method,
        args=envelope.args,
        upper_case=case["dialect_flags"]["md5_case"] == "upper",
    )

    assert (sign == case["expected_sign"]) is (case["id"] not in EXEMPT_SIGNS)
    verify_request(
        claimed=sign, ua=envelope.ua, key=case["key"], method=method, args=envelope.args, upper_case=sign.isupper()
    )


@pytest.mark.parametrize("case", _cases(exempt=True))
def test_an_exempt_cipher_is_really_none_of_ours(case):
    for mode, key_form, padding, encoding in product(Mode, KeyForm, Padding, Encoding):
        dialect = RequestDialect(mode=mode, key_form=key_form, padding=padding, encoding=encoding)
        try:
            cipher = ArgsCipher(key=case["key"], dialect=dialect)
        except KeyUnusable:
            continue
        assert cipher.encrypt(case["expected_plaintext"], iv=b"0102030405060708") != case["expected_ciphertext"]
