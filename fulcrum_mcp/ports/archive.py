"""Where records stay when many gateways write and several processors store."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.ports.store import StoreBatch, StoreState

__all__ = ["Archive", "ArchivedRecord", "Chains", "DeadLetter", "Link", "Spend"]


class Spend(NamedTuple):
    """What one record says about a call's reservation and its subject's past; the archive keeps one row a call."""

    subject: str | None = None
    """`envelope:ID` or `key:ID`; only a `decided` record says it."""
    places: tuple[Place, ...] = ()
    reserved: Amounts | None = None
    """Set in the `decided` record of a call that was admitted."""
    charged: Amounts | None = None
    """Set in the `finished` record that settled it; without it the estimate stands."""
    taints: tuple[str, ...] = ()


class ArchivedRecord(NamedTuple):
    """A record, whose hash was checked, with the members that people ask for; `line` is its exact bytes."""

    id: str
    chain: str
    seq: int
    tenant: str
    type: str
    time: int
    """Microseconds since the Unix epoch."""
    prev: str
    hash: str
    subject: str
    leg: int | None
    decision: str | None
    agent: str | None
    key: str | None
    server: str | None
    tool: str | None
    """As the server knows it."""
    effect: str | None
    """Of a `decided` record."""
    outcome: str | None
    """Of a `finished` record."""
    duration_us: int | None
    size: int | None
    """Bytes of the result."""
    cost: Mapping[str, int]
    policy: str | None
    """The policy of the first reason."""
    code: str | None
    """The code of the first reason."""
    spend: Spend | None
    line: bytes


class DeadLetter(NamedTuple):
    """What could not be stored as a record, kept whole."""

    source: str
    """The writer or subject it came from."""
    what: str
    body: bytes


class Archive(Protocol):
    """*Synchronous*; any number of processors at once, in any order."""

    def store(
        self, records: Sequence[ArchivedRecord], inputs: Sequence[tuple[str, str, int, bytes]]
    ) -> list[DeadLetter]:
        """All in one transaction, or `Unavailable` and nothing. Idempotent per record id and (chain, seq).

        `inputs` are (record id, tenant, time in us, text). Returns, and has kept, the records whose place or id is
        taken by a record with another hash.
        """
        ...

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; idempotent per body and source. Raises `Unavailable`."""
        ...

    def erase_inputs(self, before: int) -> int:
        """Erase call inputs older than a time (us); how many."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class Link(NamedTuple):
    """A stored record's place in its chain."""

    chain: str
    tenant: str
    seq: int
    prev: str
    hash: str


class Chains(Protocol):
    """The leader's view of the archive, *synchronous*: what is contiguous, checked and signed."""

    def load(self) -> StoreState:
        """Chains, broken ones and checkpoints as last written (no positions). Raises `Unavailable`."""
        ...

    def signer(self) -> str | None:
        """The id of the key that signed the trail's checkpoints; None: nothing is signed. Raises `Unavailable`."""
        ...

    def links(self, above: Mapping[str, int], most: int) -> Sequence[Link]:
        """Stored records above a chain's seq (0 for a chain not named), ordered by chain and seq, at most `most`."""
        ...

    def add(self, batch: StoreBatch) -> None:
        """Write chains, broken ones, checkpoints and faults (no rows), all or `Unavailable` and nothing."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...
