"""Checks what is stored, chain by chain, and signs it: the work of the one leader.

A record that is not there yet is a gap: the chain waits for it, and it is said since when. A record that does not
continue the one before it breaks its chain for good. Storers work in any order; only this decides what is contiguous.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.ports import Chains, Link, Signer, StoreBatch
from fulcrum_mcp.processor.checkpoints import sign_checkpoints, unsigned_records

__all__ = ["Gap", "Step", "Verifier"]

_MOST = 4096
"""Records in one step."""
_PLENTY = 256
"""From so many records on, the next step follows at once."""
_NEVER = 1 << 62
"""Above this seq nothing stands: the chain is not asked for."""
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0


@dataclass(slots=True)
class Gap:
    """A chain waits for a record while later ones are there. Times of the monotonic clock."""

    missing: int
    since: float
    again: float
    wait: float = _FIRST_WAIT


class Step(NamedTuple):
    """What one step found."""

    moved: Mapping[str, int]
    """By chain: the highest contiguous seq."""
    faults: Sequence[str]
    more: bool
    """There is more to take at once."""


@dataclass(slots=True)
class _Work:
    touched: dict[str, ChainState] = field(default_factory=dict[str, ChainState])
    moved: dict[str, int] = field(default_factory=dict[str, int])
    faults: list[tuple[str, str, bytes]] = field(default_factory=list[tuple[str, str, bytes]])


class Verifier:
    """One leader's view, from when it began to lead. After any error it is thrown away: the archive knows better."""

    def __init__(
        self,
        chains: Chains,
        signer: Signer,
        clock: Callable[[], int] = time.time_ns,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `Unavailable`."""
        self._chains = chains
        self._signer = signer
        self._clock = clock
        self._ticks = ticks
        self._state = chains.load()
        self._beyond: dict[str, int] = {}
        """How far broken chains have their records, in the right order or not."""
        self.gaps: dict[str, Gap] = {}
        self.unsigned = unsigned_records(self._state)
        """Records that no checkpoint covers yet."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Why, by chain."""
        return self._state.broken

    def stored(self) -> dict[str, int]:
        """By chain: up to where the archive has every record, so that no writer has to keep it."""
        reached = {chain: self._reached(chain, state) for chain, state in self._state.chains.items()}
        return {chain: seq for chain, seq in reached.items() if seq}

    def _reached(self, chain: str, state: ChainState) -> int:
        return self._beyond.get(chain, state.size)

    def step(self) -> Step | None:
        """Take in some records; None when nothing is new. Raises `Unavailable`."""
        now = self._ticks()
        above = self.stored()
        above |= {chain: _NEVER for chain, gap in self.gaps.items() if gap.again > now}
        links = self._chains.links(above, _MOST)
        if not links:
            return None
        work = _Work()
        for chain, found in groupby(links, attrgetter("chain")):
            self._walk(chain, list(found), work, now)
        if work.touched or work.faults:
            self._chains.add(StoreBatch(chains=work.touched, broken=self._state.broken, faults=work.faults))
        more = len(links) >= (_PLENTY if work.moved else _MOST)
        if not work.moved and not more:
            return None
        return Step(work.moved, [what for _, what, _ in work.faults], more)

    def sign(self) -> int:
        """One checkpoint for every tenant with records that none covers; how many. Raises `Unavailable`."""
        batch = sign_checkpoints(self._state, self._signer, self._clock())
        self.unsigned = 0
        if batch is None:
            return 0
        self._chains.add(batch)
        return len(batch.checkpoints)

    def _walk(self, chain: str, links: Sequence[Link], work: _Work, now: float) -> None:
        state = self._state.chains.get(chain)
        if state is None:
            state = self._state.chains[chain] = ChainState(chain, links[0].tenant)
        began = reached = self._reached(chain, state)
        for link in links:
            if link.seq != reached + 1:
                break
            if chain not in self._state.broken and not self._advance(state, link):
                self._break(state, link, work)
            reached = link.seq
            if chain in self._state.broken:
                self._beyond[chain] = reached
        if reached != began:
            work.touched[chain] = state
            work.moved[chain] = reached
        self._mind_gap(chain, reached, links[-1].seq, now)

    def _advance(self, state: ChainState, link: Link) -> bool:
        """Append a record if it continues its chain."""
        if link.prev != state.head or link.tenant != state.tenant or link.chain.partition(".")[2] != link.tenant:
            return False
        try:
            digest = bytes.fromhex(link.hash)
        except ValueError:
            return False
        state.tree.add(digest)
        state.head = link.hash
        self.unsigned += 1
        return True

    def _break(self, state: ChainState, link: Link, work: _Work) -> None:
        why = f"seq {link.seq} does not continue the record before it: the chain was forked or changed"
        self._state.broken[state.chain] = why
        work.faults.append((state.chain.partition(".")[0], f"chain {state.chain} is broken: {why}", b""))

    def _mind_gap(self, chain: str, reached: int, last: int, now: float) -> None:
        gap = self.gaps.pop(chain, None)
        if reached == last:
            return
        if gap is None or gap.missing != reached + 1:
            gap = Gap(reached + 1, now, now + _FIRST_WAIT)
        else:
            gap.wait = min(gap.wait * 2, _LONGEST_WAIT)
            gap.again = now + gap.wait
        self.gaps[chain] = gap
