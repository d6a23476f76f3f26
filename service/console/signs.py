"""Signs: why a callback's sign fits or does not, for a body that somebody pastes."""

import re

from flask import Blueprint, request
from flask_babel import gettext, lazy_gettext

from service.console.pages import command, page
from service.console.words import BODY_KINDS, REFUSALS, Words
from service.gateway.errors import CallbackRefused
from service.gateway.sign_explanation import describe_dialect, explain, mask_signed_text
from service.gateway.signature import VerifiedCallback

_MAX_TEXTS = 20

# What `sign_explanation` says. Names of languages and their functions are the same in every language.
_EXPLANATIONS: Words = {
    # What may have been signed instead.
    "fields that are empty were left out": lazy_gettext("fields that are empty were left out"),
    "fields that are null were left out": lazy_gettext("fields that are null were left out"),
    "null was signed as an empty string": lazy_gettext("null was signed as an empty string"),
    "an empty string was signed as null": lazy_gettext("an empty string was signed as null"),
    "digits in quotes were signed as numbers": lazy_gettext("digits in quotes were signed as numbers"),
    "numbers were signed as strings": lazy_gettext("numbers were signed as strings"),
    "an empty object was signed as []": lazy_gettext("an empty object was signed as []"),
    "white space at the ends of values was removed before signing": lazy_gettext(
        "white space at the ends of values was removed before signing"
    ),
    "a + was signed where the form has a space": lazy_gettext("a + was signed where the form has a space"),
    "a space was signed where the body has a +": lazy_gettext("a space was signed where the body has a +"),
    # What languages write differently.
    "keys that languages sort differently": lazy_gettext("keys that languages sort differently"),
    "null": lazy_gettext("null"),
    "a number with a sign, a fraction or an exponent: languages write it in ways that are not imitated": lazy_gettext(
        "a number with a sign, a fraction or an exponent: languages write it in ways that are not imitated"
    ),
    "a number: it may have been signed as a string, in quotes": lazy_gettext(
        "a number: it may have been signed as a string, in quotes"
    ),
    "an empty list or object: PHP writes [] for both": lazy_gettext("an empty list or object: PHP writes [] for both"),
    "an object or list: some languages sort the keys within it, others do not": lazy_gettext(
        "an object or list: some languages sort the keys within it, others do not"
    ),
    "a lone surrogate (half of a character)": lazy_gettext("a lone surrogate (half of a character)"),
    "a line or paragraph separator (U+2028, U+2029)": lazy_gettext("a line or paragraph separator (U+2028, U+2029)"),
    "characters beyond the first plane, such as emoji and rare Chinese ones": lazy_gettext(
        "characters beyond the first plane, such as emoji and rare Chinese ones"
    ),
    "characters beyond ASCII, such as Chinese ones": lazy_gettext("characters beyond ASCII, such as Chinese ones"),
    # How they write it.
    "left out": lazy_gettext("left out"),
    "as it is": lazy_gettext("as it is"),
    r"\uxxxx, small hex digits": lazy_gettext(r"\uxxxx, small hex digits"),
    r"\uXXXX, capital hex digits": lazy_gettext(r"\uXXXX, capital hex digits"),
}
_UNSIGNED_FIELD = re.compile(r"the field (?P<name>.+) was not signed; perhaps a proxy added it", re.DOTALL)
_CHARACTER = re.compile(r"the character (?P<name>.)", re.DOTALL)
_CONTROL_CHARACTER = re.compile(r"the control character (?P<name>U\+.+)")


def make_signs() -> Blueprint:
    """The page. It keeps nothing of what is pasted."""
    blueprint = Blueprint("signs", __name__, url_prefix="/signs")

    @blueprint.route("", methods=["GET", "POST"])
    def show() -> str:
        # Browsers send line breaks of a text field as CRLF.
        body = request.form.get("body", "").strip("\r\n").replace("\r\n", "\n")
        verified = mismatch = None
        refusal = ""
        if body:
            try:
                outcome = explain(body.encode("utf-8", "surrogatepass"), request.form.get("content_type") or None)
                verified, mismatch = (outcome, None) if isinstance(outcome, VerifiedCallback) else (None, outcome)
            except CallbackRefused as error:
                refusal = gettext(
                    "refused (%(reason)s): %(detail)s", reason=REFUSALS[error.reason], detail=error.detail
                )
        return page(
            "signs.html",
            body=body,
            verified=verified,
            mismatch=mismatch,
            refusal=refusal,
            max_texts=_MAX_TEXTS,
            masked_text=mask_signed_text,
            kinds=BODY_KINDS,
            in_words=explanation_in_words,
            describe_dialect=describe_dialect,
            command=command("sign", "explain", "body.txt"),
        )

    return blueprint


def explanation_in_words(text: str) -> str:
    """What an explanation of a sign says, in the reader's language. What is only a spelling stays as it is."""
    words: object = _EXPLANATIONS.get(text, text)
    if found := _UNSIGNED_FIELD.fullmatch(text):
        words = gettext("the field %(name)s was not signed; perhaps a proxy added it", **found.groupdict())
    elif found := _CHARACTER.fullmatch(text):
        words = gettext("the character %(name)s", **found.groupdict())
    elif found := _CONTROL_CHARACTER.fullmatch(text):
        words = gettext("the control character %(name)s", **found.groupdict())
    return str(words)
