"""The audit trail of one data folder, put together: the spool to write, the processor, the store to ask, the keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fulcrum_adapters.signing import AuditKeys, PublicKey
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolConfig, SpoolReader
from fulcrum_adapters.sqlite.audit_reader import SqliteAuditReader
from fulcrum_adapters.sqlite.audit_store import SqliteAuditStore
from fulcrum_mcp.core.trail import Check
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditReader, Signer
from fulcrum_mcp.processor import Intake, Processor, ProcessorConfig

__all__ = [
    "LocalTrail",
    "open_keys",
    "open_processor",
    "open_reader",
    "open_spool",
    "open_trail",
    "orphans",
    "read_check",
]


def open_spool(data: Path, *, durability: str = "sync", max_bytes: int | None = None) -> Spool:
    """The log of this process; a dead writer's, if there is one: see its `open_calls`. Raises `Unavailable`."""
    return Spool.open(data / "spool", _config(durability, max_bytes))


def orphans(data: Path, *, durability: str = "sync") -> Iterator[Spool]:
    """Dead writers with open calls, one by one: append their `finished`; each is given back at the next step."""
    return Spool.orphans(data / "spool", _config(durability, None))


def _config(durability: str, max_bytes: int | None) -> SpoolConfig:
    return SpoolConfig(durability) if max_bytes is None else SpoolConfig(durability, max_bytes=max_bytes)


def open_keys(data: Path) -> AuditKeys:
    """Made if they are not there. Raises `Unavailable`, `Invalid`."""
    return AuditKeys(data / "keys")


def open_reader(data: Path) -> SqliteAuditReader:
    """For queries while others write. Raises `Unavailable`."""
    return SqliteAuditReader(data / "audit.db")


def open_processor(data: Path, config: ProcessorConfig | None = None, *, breath: float | None = None) -> Processor:
    """Not started. It works whenever no other process of this data folder does."""

    def begin() -> Intake:
        source = SpoolReader(data / "spool", data / "aside")
        store, keys = SqliteAuditStore(data / "audit.db"), open_keys(data)
        return Intake(source, store, keys) if breath is None else Intake(source, store, keys, breath=breath)

    return Processor(begin, FileLeadership(data / "processor.lock"), config)


@dataclass(frozen=True, slots=True)
class LocalTrail:
    """What a command on this machine works with."""

    reader: AuditReader
    signer: Signer
    complete: bool
    """All that was acknowledged before is in the store."""
    refresh: Callable[[], bool]
    """Take in what came since; False when another process leads and is behind."""


@contextmanager
def open_trail(data: Path, patience: float = 10.0) -> Iterator[LocalTrail]:
    """Everything recorded so far, spools included. Raises `Unavailable`, also where nothing was ever recorded."""
    if not (data / "spool").is_dir() and not (data / "audit.db").exists():
        raise Unavailable(f"{data}: nothing is recorded here; start `fulcrum up`, or name another folder with --data")
    processor = open_processor(data, breath=0.0)
    try:
        complete = processor.drain(patience)
        reader = open_reader(data)
        try:
            yield LocalTrail(reader, open_keys(data), complete, lambda: processor.drain(0.5))
        finally:
            reader.close()
    finally:
        processor.stop()


def read_check(path: Path) -> tuple[str, Check]:
    """Key id and signature check of a public key file. Raises `Invalid`."""
    key = PublicKey.read(path)
    return key.key_id, key.check
