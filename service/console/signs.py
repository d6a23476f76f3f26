"""Signs: why a callback's sign fits or does not, for a body that somebody pastes."""

from flask import Blueprint, request
from flask_babel import gettext

from service.console.pages import command, page
from service.console.words import BODY_KINDS, REFUSALS
from service.gateway.errors import CallbackRefused
from service.gateway.sign_explanation import describe_dialect, explain, mask_signed_text
from service.gateway.signature import VerifiedCallback

_MAX_TEXTS = 20


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
            describe_dialect=describe_dialect,
            command=command("sign", "explain", "body.txt"),
        )

    return blueprint
