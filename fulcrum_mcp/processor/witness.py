"""What one witness of the trail holds: the hash of every record it has, by chain and seq, in little memory.

Records of a chain lie together, 16 bytes each; a far-off seq that somebody made up costs a kilobyte, not more.
"""

from collections.abc import Iterable, Iterator

__all__ = ["Witness", "ranges"]

_EACH = 16
_BLOCK = 64
_NOTHING = bytes(_EACH)


class Witness:
    """Digests by place. `put` them, `take` them away again; what stays was never asked for."""

    def __init__(self) -> None:
        self._blocks: dict[str, dict[int, bytearray]] = {}
        self.counts: dict[str, int] = {}
        """By chain: how many were put."""

    def put(self, chain: str, seq: int, digest: str) -> bool:
        """False when it has another record there already, which stays."""
        blocks = self._blocks.setdefault(chain, {})
        number, place = divmod(seq, _BLOCK)
        block = blocks.get(number)
        if block is None:
            block = blocks[number] = bytearray(_BLOCK * _EACH)
        at = place * _EACH
        there, new = bytes(block[at : at + _EACH]), bytes.fromhex(digest[: 2 * _EACH])
        if there == _NOTHING:
            block[at : at + _EACH] = new
            self.counts[chain] = self.counts.get(chain, 0) + 1
        return there in {_NOTHING, new}

    def take(self, chain: str, seq: int, digest: str) -> bool | None:
        """Whether it has this very record there; None: it has none. It has none afterwards."""
        number, place = divmod(seq, _BLOCK)
        block = self._blocks.get(chain, {}).get(number)
        if block is None:
            return None
        at = place * _EACH
        there = bytes(block[at : at + _EACH])
        if there == _NOTHING:
            return None
        block[at : at + _EACH] = _NOTHING
        return there == bytes.fromhex(digest[: 2 * _EACH])

    def has(self, chain: str, seq: int) -> bool:
        """Is there any record?"""
        number, place = divmod(seq, _BLOCK)
        block = self._blocks.get(chain, {}).get(number)
        return block is not None and bytes(block[place * _EACH : (place + 1) * _EACH]) != _NOTHING

    def chains(self) -> list[str]:
        """All of which a record was put, ascending."""
        return sorted(self.counts)

    def left(self, chain: str) -> Iterator[int]:
        """Seqs that it has, ascending."""
        blocks = self._blocks.get(chain, {})
        for number in sorted(blocks):
            block = blocks[number]
            for place in range(_BLOCK):
                if bytes(block[place * _EACH : (place + 1) * _EACH]) != _NOTHING:
                    yield number * _BLOCK + place


def ranges(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, last)."""
    first = last = None
    for seq in seqs:
        if first is None or last is None:
            first = last = seq
        elif seq == last + 1:
            last = seq
        else:
            yield first, last
            first = last = seq
    if first is not None and last is not None:
        yield first, last
