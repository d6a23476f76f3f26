"""Faults: errors that nobody expected, made fit for logs and for the database."""

import traceback

from service.domain.masking import mask_personal

_MOST_CHARACTERS = 500


def describe_fault(error: BaseException) -> str:
    """`ErrorClass: text`, bounded, without the personal data that can be found, and writable as UTF-8."""
    text = f"{type(error).__name__}: {mask_personal(str(error))}"[:_MOST_CHARACTERS]
    return text.encode(errors="backslashreplace").decode()


def frames_of(error: BaseException) -> str:
    """Where it came from, as a traceback without the error's own text, which may quote a callback."""
    return "".join(traceback.format_tb(error.__traceback__))
