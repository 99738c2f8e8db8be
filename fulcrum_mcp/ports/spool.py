"""Reading what writers left on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["SpoolChunk", "SpoolPosition", "SpoolSource"]


class SpoolPosition(NamedTuple):
    """How far a writer's segments were read."""

    segment: int
    offset: int


@dataclass(slots=True)
class SpoolChunk:
    """What was read from a spool, in the writer's order."""

    lines: list[bytes]
    inputs: list[tuple[str, bytes]]
    """(record id, call inputs)."""
    heads: list[tuple[int, Mapping[str, tuple[int, str]]]]
    """Before line n the writer's chains stood at tenant -> (seq, hash)."""
    position: SpoolPosition
    faults: list[str]
    """What could not be read, and where it is kept."""
    whole: bool = False
    """It ends where the last append ended: inputs of its last record cannot still come."""


class SpoolSource(Protocol):
    """All spools of a data folder, living writers' too, *synchronous*; for the processor."""

    def writers(self) -> Sequence[str]:
        """Who ever wrote here and is not removed."""
        ...

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        """A piece of what was acknowledged after a position; None: nothing new. Raises `Unavailable`."""
        ...

    def release(self, writer: str, position: SpoolPosition) -> None:
        """The store durably holds everything before a position: it may be removed. Idempotent."""
        ...

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        """Something wrong was read there: its segment is moved aside, never removed, and the chains end."""
        ...
