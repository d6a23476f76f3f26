"""The dialects that a probe tries: those that gateways of this kind are known to have, likeliest first."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from service.gateway.cipher import ArgsCipher
from service.gateway.errors import KeyUnusable
from service.gateway.request_dialect import Encoding, KeyForm, Mode, Padding, RequestDialect, SignCase
from service.settings import Secret

_SEPARATORS = ("", "&", "|", "-", "_", ",", ":", ";", "#", "+", "\n")
_KEY_FORMS = (
    KeyForm.RAW,
    KeyForm.FIRST_16,
    KeyForm.MD5_HEX,
    KeyForm.MD5_RAW,
    KeyForm.HEX,
    KeyForm.BASE64,
    KeyForm.SHA256,
)
_MODES = (Mode.ECB, Mode.CBC_IV_KEY, Mode.CBC_IV_ZERO, Mode.CBC_IV_SENT)
_PADDINGS = (Padding.PKCS7, Padding.ZERO)
_ENCODINGS = (
    Encoding.BASE64,
    Encoding.HEX,
    Encoding.HEX_UPPER,
    Encoding.BASE64_URL,
    Encoding.BASE64_URL_UNPADDED,
)


def guess_signs(base: RequestDialect) -> Iterator[RequestDialect]:
    """`base` with every separator and case of the sign."""
    for separator, case in product(_SEPARATORS, SignCase):
        yield replace(base, sign_separator=separator, sign_case=case)


def guess_ciphers(base: RequestDialect, aes_key: Secret) -> Iterator[RequestDialect]:
    """`base` with every cipher that the key can be used in; the fewer likelier choices one passes over, the sooner."""
    key_forms = _usable_key_forms(aes_key)
    axes: Sequence[Sequence[object]] = (key_forms, _MODES, _PADDINGS, _ENCODINGS)
    places = product(*(range(len(axis)) for axis in axes))
    for form, mode, padding, encoding in sorted(places, key=lambda place: (sum(place), place)):
        yield replace(
            base,
            key_form=key_forms[form],
            mode=_MODES[mode],
            padding=_PADDINGS[padding],
            encoding=_ENCODINGS[encoding],
        )


def _usable_key_forms(aes_key: Secret) -> Sequence[KeyForm]:
    """Those that make an AES key of it, each AES key once."""
    found: dict[str, KeyForm] = {}
    for form in _KEY_FORMS:
        try:
            cipher = ArgsCipher(key=aes_key.reveal(), dialect=RequestDialect(key_form=form))
        except KeyUnusable:
            continue
        found.setdefault(cipher.encrypt(b""), form)
    return list(found.values())
