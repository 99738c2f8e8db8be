"""Frames: what is whole is found, what is torn or damaged is told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.frames import HEADER, INPUTS, MAX_PAYLOAD, RECORD, SNAPSHOT, first, frame, resync, split

RECORD_TEXT = b'{"specversion":"1.0","id":"a"}'
KINDS = st.sampled_from([RECORD, INPUTS, SNAPSHOT])


@given(st.lists(st.tuples(KINDS, st.binary(max_size=64)), max_size=8), st.integers(0, 40))
def test_what_was_framed_is_split_again_and_a_torn_end_is_only_short(
    items: list[tuple[int, bytes]], missing: int
) -> None:
    whole = b"".join(frame(kind, payload) for kind, payload in items)
    cut = whole[: len(whole) - missing] if missing else whole
    found, end, bad = split(cut)
    assert found == items[: len(found)]
    assert not bad
    assert (found == items) == (missing == 0 or not items)
    assert end == sum(HEADER.size + len(payload) for _, payload in found)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_flipped_bit_is_seen(payload: bytes, data: st.DataObject) -> None:
    raw = bytearray(frame(RECORD, payload))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    assert first(bytes(raw)) is None


def test_reading_goes_on_behind_damage_at_the_next_record() -> None:
    one, two = frame(RECORD, RECORD_TEXT), frame(RECORD, RECORD_TEXT + b" ")
    raw = one[:-3] + b"xyz" + two
    assert split(raw) == ([], 0, True)
    assert resync(raw, 0) == len(one)
    assert first(raw, len(one)) == (RECORD, RECORD_TEXT + b" ")
    assert resync(raw, len(one)) is None


@pytest.mark.parametrize("head", [HEADER.pack(MAX_PAYLOAD + 1, 0, RECORD), HEADER.pack(1, 0, ord("X"))])
def test_a_length_or_kind_that_cannot_be_is_bad_at_once(head: bytes) -> None:
    assert split(head) == ([], 0, True)
