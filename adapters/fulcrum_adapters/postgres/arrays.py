"""Long lists as PostgreSQL's arrays in binary form, many times cheaper than element by element through the driver.

Values that come again, as most of a record's members do, are written once and copied.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = ["ArrayType", "Packed", "know_arrays", "packed"]

ArrayType = Literal["text", "bigint", "bytea"]

_NULL: Final = struct.pack("!i", -1)
_HEAD: Final = struct.Struct("!iiIii")
"""Dimensions, whether there are nulls, the element's type; length and lower bound of the one dimension."""
_EMPTY: Final = struct.Struct("!iiI")
_LENGTH: Final = struct.Struct("!i").pack
_BIGINT: Final = struct.Struct("!iq").pack
_OIDS: Final[Mapping[ArrayType, int]] = {"text": 25, "bigint": 20, "bytea": 17}


class Packed(bytes):
    """A list as it travels; the statement's cast says which type of array it is."""

    __slots__ = ()


class _PackedDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: bytes) -> Buffer:
        return obj


def know_arrays(connection: psycopg.Connection[Any]) -> None:
    """Let a connection take `Packed` as a parameter, `%b::TYPE[]`."""
    connection.adapters.register_dumper(Packed, _PackedDumper)


class _Memo(dict[Any, bytes]):
    """The bytes of an element, by its value."""

    def __init__(self, write: Callable[[Any], bytes]) -> None:
        super().__init__({None: _NULL})
        self._write = write

    def __missing__(self, value: Any) -> bytes:
        found = self[value] = self._write(value)
        return found


def _text(value: str) -> bytes:
    raw = value.encode()
    return _LENGTH(len(raw)) + raw


def _bigint(value: int) -> bytes:
    return _BIGINT(8, value)


def _bytea(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


_WRITERS: Final[Mapping[ArrayType, Callable[[Any], bytes]]] = {"text": _text, "bigint": _bigint, "bytea": _bytea}


def packed(kind: ArrayType, values: Sequence[Any]) -> Packed:
    """A one-dimensional array. Raises UnicodeEncodeError, struct.error for what the type does not hold."""
    oid = _OIDS[kind]
    if not values:
        return Packed(_EMPTY.pack(0, 0, oid))
    head = _HEAD.pack(1, 1, oid, len(values), 1)
    if kind == "bytea":  # hardly ever twice the same
        return Packed(head + b"".join([_NULL if value is None else _bytea(value) for value in values]))
    return Packed(head + b"".join(map(_Memo(_WRITERS[kind]).__getitem__, values)))
