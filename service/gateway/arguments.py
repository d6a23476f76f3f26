"""Checks of a request's arguments beyond the document: ID, card and mobile numbers, names and pay types.

A gateway answers -1 to any invalid argument, and after a withhold that leaves the outcome unknown. So everything that
can be checked is checked before anything is sent.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from stdnum import luhn
from stdnum.cn import ric
from stdnum.exceptions import ValidationError

from service.gateway.errors import FieldProblem, MessageInvalid
from service.gateway.requests import ConfirmTiedCardArgs, PreTiedCardArgs, SingleWithholdArgs

PersonalArgs = PreTiedCardArgs | ConfirmTiedCardArgs | SingleWithholdArgs

_ID_CARD = re.compile(r"[0-9]{17}[0-9X]")
_FIRST_GENERATION = re.compile(r"[0-9]{15}")
_BANK_CARD = re.compile(r"[0-9]{12,19}")
_MOBILE = re.compile(r"1[3-9][0-9]{9}")
# The longest names on ID cards, Uyghur names in Chinese characters, have about 20.
_LONGEST_NAME = 64


def check_arguments(name: str, args: PersonalArgs, *, pay_types: Collection[str]) -> None:
    """Raise `MessageInvalid`, which calls the message `name`, for an invalid number or name or an unknown pay_type.

    `pay_types` are the merchant's. Nothing is converted: a number with spaces or a lower-case x is refused, because it
    would be sent as it is. No value is quoted.
    """
    problems = tuple(_find_problems(args, pay_types))
    if problems:
        raise MessageInvalid(name, problems)


def _find_problems(args: PersonalArgs, pay_types: Collection[str]) -> Iterator[FieldProblem]:
    for field, check in _CHECKS.items():
        value = getattr(args, field, None)
        if value is not None and (text := check(value)):
            yield FieldProblem(field, text)
    if args.pay_type not in pay_types:
        yield FieldProblem("pay_type", f"not this merchant's; expected {' or '.join(sorted(pay_types))}")


def _check_id_card_number(number: str) -> str | None:
    if _FIRST_GENERATION.fullmatch(number):
        return "15 digits, a first-generation number, void since 2013; expected the person's 18-digit number"
    if not _ID_CARD.fullmatch(number):
        return "not an ID number; allowed are 17 digits and then a digit or a capital X"
    # Not `ric.validate`: it also requires a place of birth from a list that lacks the residence permits of people from
    # Hong Kong, Macao and Taiwan (81, 82, 83) and every newer place.
    if number[-1] != ric.calc_check_digit(number):
        return "an ID number whose check digit does not fit: a digit is wrong, or two are swapped"
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return "an ID number whose date of birth does not exist"
    return None


def _check_bank_card_number(number: str) -> str | None:
    if not _BANK_CARD.fullmatch(number):
        return "not a card number; allowed are 12 to 19 digits"
    if not luhn.is_valid(number):
        return "a card number whose check digit does not fit: a digit is wrong, or two are swapped"
    return None


def _check_mobile(number: str) -> str | None:
    if not _MOBILE.fullmatch(number):
        return "not a mobile number; allowed are 11 digits from 13 to 19, without a country code"
    return None


def _check_name(name: str) -> str | None:
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name.isspace():
        return f"not a person's name; allowed are 1 to {_LONGEST_NAME} printable characters"
    return None


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "bank_card_number": _check_bank_card_number,
    "id_card_number": _check_id_card_number,
    "mobile": _check_mobile,
    "name": _check_name,
}
