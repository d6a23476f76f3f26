"""Bodies that cost a receiver as much as any stranger can make them, for hypothesis."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

#: What multipart bodies among them are sent with.
COSTLY_CONTENT_TYPE = "multipart/form-data; boundary=b"
#: The receiver takes no more.
LARGEST_BODY_BYTES = 64 * 1024

_SIGN = "a" * 32
# What writers spell differently, one by one, raw or escaped in a form or in JSON.
_PIECES = st.sampled_from([
    *"\b\x7f\f\x01\\/<='\x80\u2028\u2000中𠮷a +%{[,1\"&",
    *("</", "&amp", "%01", "%5C", "%C2%80", "%2B", "\\u0001", "\\\\", '\\"', "null", "true"),
])  # fmt: skip
_FILLINGS = st.lists(_PIECES, min_size=1, max_size=6).map("".join)
_NAMES = st.sampled_from(["f", "pay_time", "0", "9.5", "1e1", "-1", "中", "\x7f", "a/b"])


@st.composite
def costly_bodies(draw: st.DrawFn) -> bytes:
    """One body of up to `LARGEST_BODY_BYTES` with a sign that fits nothing."""
    fields = draw(st.integers(1, 250))
    size = draw(st.sampled_from([100, 1_000, 5_000, 16_000, 32_000, LARGEST_BODY_BYTES]))
    name, filling, plus = draw(_NAMES), draw(_FILLINGS), draw(st.sampled_from(["", "+"]))
    length = max(1, (size // fields - 12) // len(filling.encode()))
    values = {f"{name}{number or ''}": plus + filling * length for number in range(fields)}
    return draw(st.sampled_from(_WRITERS))(values).encode("utf-8", "replace")[:LARGEST_BODY_BYTES]


def _form(values: dict[str, str]) -> str:
    return f"sign={_SIGN}&" + "&".join(f"{name}={value}" for name, value in values.items())


def _json(values: dict[str, str]) -> str:
    members = (f'"{name}" : "{value}"' for name, value in values.items())
    return f'{{"sign":"{_SIGN}", {" , ".join(members)} }}'


def _json_with_nesting(values: dict[str, str]) -> str:
    members = (f'"{name}":{{"b":"{value}","a":[null]}}' for name, value in values.items())
    return f'{{"sign":"{_SIGN}",{",".join(members)}}}'


def _multipart(values: dict[str, str]) -> str:
    parts = (
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in values.items()
    )
    return f"{''.join(parts)}--b\r\nContent-Disposition: form-data; name=sign\r\n\r\n{_SIGN}\r\n--b--"


def _two_in_a_form(values: dict[str, str]) -> str:
    both = list(values.items())
    return f"{_json(dict(both[::2]))}={_json(dict(both[1::2])).replace(_SIGN, 'b' * 32)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


_WRITERS: Sequence[Callable[[dict[str, str]], str]] = (
    _form,
    _json,
    _json_with_nesting,
    _multipart,
    _two_in_a_form,
    lambda values: f"data={_json(values)}",
    lambda values: f"data=%7B{_json(values)[1:]}",
    lambda values: f'"{_escaped(_json(values))}"',
    lambda values: f"[{_json(values)}]",
)
