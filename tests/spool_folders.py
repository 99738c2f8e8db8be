"""Looks into spool folders, and kills their writers."""

from collections.abc import Sequence
from pathlib import Path

from fulcrum_adapters.spool import Spool, SpoolConfig, SpoolReader
from fulcrum_adapters.spool.folder import Folder
from fulcrum_mcp.core.audit import parse_record
from fulcrum_mcp.ports import SpoolPosition

SMALL = SpoolConfig("os", segment_bytes=4096)
START = SpoolPosition(0, 0)


def reader(root: Path, chunk: int = 256 << 10) -> SpoolReader:
    return SpoolReader(root, root.parent / "aside", chunk)


def read(root: Path, writer: str | None = None, chunk: int = 256 << 10) -> tuple[list[bytes], list[str]]:
    lines: list[bytes] = []
    faults: list[str] = []
    source = reader(root, chunk)
    for each in [writer] if writer else source.writers():
        position = START
        while (piece := source.read(each, position)) is not None:
            lines += piece.lines
            faults += piece.faults
            position = piece.position
    return lines, faults


def seqs(lines: Sequence[bytes]) -> list[int]:
    heads = [parse_record(line) for line in lines]
    assert all(head is not None and head.whole for head in heads)
    known: dict[str, str] = {}
    for head in heads:
        assert head is not None
        assert known.get(head.chain, "0" * 64) == head.prev
        known[head.chain] = head.hash
    return [head.seq for head in heads if head]


def die(spool: Spool) -> None:
    """What kill -9 leaves: locks gone, nothing said."""
    spool._drop()


def last_segment(root: Path, writer: str) -> Path:
    folder = Folder(root / writer)
    return folder.segment(folder.segments()[-1])


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0
