"""JSON for Hypothesis: values of every kind, their many spellings, and what must be told apart."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["HOSTILE", "JsonValue", "json_objects", "json_values", "same_json", "spelled", "strict_loads"]

JsonValue = Any

_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "",
        "\x00",
        "\x1f\x7f",
        "\u2028",
        "\ufeff",
        "é",
        "e\u0301",
        "😀",
        "\u017f",
        "\u212a",
        "\u0130",
        '"\\/',
        "__proto__",
        "</script>",
    ]
)
_INTEGERS: Final = (
    st.integers(-(10**3), 10**3)
    | st.integers(-(10**300), 10**300)
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**30, 10**308])
)
_HUGE: Final = st.integers(10**309, 10**400) | st.sampled_from([-(10**400), 10**4000])
_FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 1e16, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 2.0**53]
)
_LEAVES: Final = st.none() | st.booleans() | _INTEGERS | _FLOATS | _TEXT


def json_values(max_leaves: int = 12, *, huge: bool = False) -> st.SearchStrategy[JsonValue]:
    """Any JSON value; integers of up to 308 digits, without bound if `huge` (policies cannot judge those)."""
    return st.recursive(
        _LEAVES | _HUGE if huge else _LEAVES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=max_leaves,
    )


def json_objects(max_leaves: int = 12, *, huge: bool = False) -> st.SearchStrategy[dict[str, JsonValue]]:
    """Any JSON object."""
    return st.dictionaries(_TEXT, json_values(max_leaves, huge=huge), max_size=4)


@st.composite
def spelled(draw: st.DrawFn, values: st.SearchStrategy[JsonValue]) -> tuple[JsonValue, bytes]:
    """A value, and one of the texts that say it."""
    value = draw(values)
    separators = draw(st.sampled_from([None, (",", ":"), (" ,\n", "\t: ")]))
    ascii_only = draw(st.booleans())
    indent = draw(st.sampled_from([None, None, 1]))
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators, indent=indent)
    return value, draw(st.sampled_from(["", " ", "\r\n"])).encode() + text.encode()


def same_json(left: JsonValue, right: JsonValue) -> bool:
    """Equal as JSON: 1, 1.0 and true are three values, 0.0 and -0.0 two, members have no order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refused(word: str) -> Any:
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def strict_loads(text: bytes) -> JsonValue:
    """Python's own parser, held to RFC 8259, unique names, finite numbers and no lone surrogates: the oracle."""
    value = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refused, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode()
    return value


HOSTILE: Final[Mapping[str, bytes]] = {
    "empty": b"",
    "white space": b" \r\n\t ",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "-1e400": b'{"a":[-1E+400]}',
    "too many digits": b'{"a":' + b"9" * 5000 + b"}",
    "escaped lone surrogate": b'{"a":"\\ud800"}',
    "escaped surrogates in the wrong order": b'{"a":"\\udc00\\ud800"}',
    "surrogate followed by a letter": b'{"a":"\\ud83dx"}',
    "surrogate in a name": b'{"\\udfff":1}',
    "raw surrogate": b'{"a":"\xed\xa0\x80"}',
    "no UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "truncated UTF-8": b'{"a":"\xe2\x82"}',
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "100,000 arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 open arrays": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "two values": b"{} {}",
    "trailing garbage": b'{"a":1}x',
    "trailing NUL": b'{"a":1}\x00',
    "trailing comma": b'{"a":[1,]}',
    "raw control character": b'{"a":"\x01"}',
    "raw tab": b'{"a":"\t"}',
    "leading zero": b'{"a":01}',
    "no fraction": b'{"a":1.}',
    "no whole": b'{"a":.5}',
    "plus": b'{"a":+1}',
    "hexadecimal": b'{"a":0x10}',
    "single quotes": b"{'a':1}",
    "comment": b'{"a":1/* */}',
    "Python's True": b'{"a":True}',
    "vertical tab": b'\x0b{"a":1}',
    "no-break space": '\u00a0{"a":1}'.encode(),
    "unknown escape": b'{"a":"\\x41"}',
    "short escape": b'{"a":"\\u12"}',
    "duplicate": b'{"a":1,"a":1}',
    "duplicate by an escape": b'{"a":1,"\\u0061":2}',
    "duplicate far inside": b'{"a":[{"b":{"c":1,"d":2,"c":1}}]}',
    "duplicate empty name": b'{"":1,"":2}',
}
"""What no message may be: by what is wrong with it."""
