"""What is between the spools and the archive: read, published, not yet confirmed."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fulcrum_mcp.gateway.parcels import Load, Packer
from fulcrum_mcp.ports import SpoolPosition

__all__ = ["START", "Haul", "Mark", "Writer"]

START: Final = SpoolPosition(0, 0)


@dataclass(slots=True)
class Mark:
    """Everything of one writer between two positions is under way."""

    start: SpoolPosition
    end: SpoolPosition
    segments: set[int]
    ends: dict[str, int]
    records: int
    size: int
    since: float
    at: float
    """When it was last sent."""
    tries: int = 0
    """How often it was sent again."""


@dataclass(slots=True)
class Writer:
    """How far one writer is carried."""

    packer: Packer
    position: SpoolPosition = START
    begin: SpoolPosition = START
    """Where what is not yet marked begins: before `position` when a line is held back."""
    marks: deque[Mark] = field(default_factory=deque[Mark])
    confirmed: SpoolPosition = START
    released: SpoolPosition = START


class Haul(NamedTuple):
    """What was read of one writer in one turn."""

    writer: str
    start: SpoolPosition
    end: SpoolPosition
    further: SpoolPosition
    """Where the next one begins: before `end` when a line is held back."""
    segments: set[int]
    load: Load
    more: bool
