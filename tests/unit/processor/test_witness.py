from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.processor.witness import Witness, ranges


def digest(number: int) -> str:
    return f"{number:064x}"[::-1]


def test_what_was_put_is_taken_once() -> None:
    witness = Witness()
    assert witness.put("c", 7, digest(1))
    assert witness.put("c", 7, digest(1))
    assert not witness.put("c", 7, digest(2))
    assert witness.counts == {"c": 1}
    assert witness.take("c", 8, digest(1)) is None
    assert witness.take("d", 7, digest(1)) is None
    assert witness.take("c", 7, digest(1)) is True
    assert witness.take("c", 7, digest(1)) is None
    assert witness.put("c", 7, digest(2))
    assert witness.take("c", 7, digest(3)) is False
    assert witness.chains() == ["c"]


@given(st.dictionaries(st.integers(1, 10**18), st.integers(1, 2**60), max_size=50), st.sets(st.integers(0, 49)))
def test_it_is_a_map_of_places(held: dict[int, int], taken: set[int]) -> None:
    witness = Witness()
    for seq, number in held.items():
        witness.put("c", seq, digest(number))
    assert list(witness.left("c")) == sorted(held)
    gone = {seq for place, seq in enumerate(sorted(held)) if place in taken}
    for seq in gone:
        assert witness.take("c", seq, digest(held[seq])) is True
    assert list(witness.left("c")) == sorted(set(held) - gone)


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_every_number_once_and_never_touch(numbers: set[int]) -> None:
    found = list(ranges(sorted(numbers)))
    assert [number for first, last in found for number in range(first, last + 1)] == sorted(numbers)
    assert all(first <= last for first, last in found)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(found))
