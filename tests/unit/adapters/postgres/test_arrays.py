"""Arrays as PostgreSQL reads them: the same bytes that the driver's own, slower way gives."""

import struct

import pytest
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.numeric import Int8

from fulcrum_adapters.postgres.arrays import packed


def drivers(values: list[object]) -> bytes:
    transformer = Transformer()
    dumped = transformer.get_dumper(values, PyFormat.BINARY).dump(values)
    assert dumped is not None
    return bytes(dumped)


def test_texts_are_written_as_the_driver_does() -> None:
    values = ["a", None, "", "größer", "a", None, "x" * 5000, "\U0001f600"]
    assert packed("text", values) == drivers(list(values))


def test_numbers_are_written_as_the_driver_does() -> None:
    values = [0, None, 1, -1, 2**63 - 1, -(2**63), 1]
    assert packed("bigint", values) == drivers([None if value is None else Int8(value) for value in values])


def test_bytes_are_written_as_the_driver_does() -> None:
    values = [b"", None, b"\0\xff", b"a" * 100_000]
    assert packed("bytea", values) == drivers(list(values))


def test_nothing_is_an_empty_array() -> None:
    assert packed("text", []) == struct.pack("!iiI", 0, 0, 25)


def test_what_the_type_does_not_hold_is_refused() -> None:
    with pytest.raises(struct.error):
        packed("bigint", [2**63])
    with pytest.raises(UnicodeEncodeError):
        packed("text", ["\ud800"])
