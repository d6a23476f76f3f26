"""Unexpected errors, described for logs and for the database."""

import traceback

from service.domain.masking import mask_personal

_MAX_CHARACTERS = 500


def describe_fault(error: BaseException) -> str:
    """`ErrorClass: text`, cut to a length, with personal data masked as far as it is found, and valid as UTF-8."""
    text = f"{type(error).__name__}: {mask_personal(str(error))}"[:_MAX_CHARACTERS]
    return text.encode(errors="backslashreplace").decode()


def frames_of(error: BaseException) -> str:
    """The traceback without the error's own text, which may quote a callback."""
    return "".join(traceback.format_tb(error.__traceback__))
