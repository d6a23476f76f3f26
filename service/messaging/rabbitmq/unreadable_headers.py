"""pika, made to survive headers that it cannot decode."""

import struct
from typing import Any

from pika import data
from pika.exceptions import InvalidFieldTypeException

_LENGTH_BYTES = 4

_decode_table = data.decode_table


def tolerate_unreadable_headers() -> None:
    """From now on, in this process, a table of headers that pika cannot decode is an empty one. Safe to repeat.

    pika raises in the middle of reading from the socket, which costs the connection: one such message (a timestamp in
    milliseconds is enough) would keep every consumer from all that lies behind it, would use up its neighbours'
    delivery limit, and could not even be listed among the dead letters. There is no other way in than replacing the
    function.
    """
    data.decode_table = _decode_what_is_readable


def _decode_what_is_readable(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    try:
        return _decode_table(encoded, offset)
    except (ValueError, OverflowError, OSError, RecursionError, struct.error, InvalidFieldTypeException):
        (length,) = struct.unpack_from(">I", encoded, offset)
        return {}, offset + _LENGTH_BYTES + length
