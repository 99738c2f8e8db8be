"""What can happen to a file that SQLite keeps; each ends with the file as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded_rig import elsewhere

__all__ = ["OTHER_LEDGER", "locked", "moved_away", "noise", "replaced_by_another_ledger", "replaced_by_nothing"]

LOCK = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
held.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""
OTHER_LEDGER = """
import sys
from pathlib import Path
from fulcrum_adapters.sqlite.store import SqliteStore
SqliteStore(Path(sys.argv[1])).ledger.open("nobody")
"""
SUFFIXES = ("", "-wal", "-shm")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes to an SQLite file, and takes its time."""
    with elsewhere(LOCK, path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            other.communicate()


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    """Nothing is there, until it is put back."""
    saved = path.parent / "saved"
    saved.mkdir()
    for suffix in SUFFIXES:
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(saved / f"file{suffix}")
    try:
        yield
    finally:
        for suffix in SUFFIXES:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
            if (saved / f"file{suffix}").exists():
                (saved / f"file{suffix}").rename(f"{path}{suffix}")
        saved.rmdir()


@contextmanager
def replaced_by_nothing(path: Path) -> Iterator[None]:
    with moved_away(path):
        path.touch()
        yield


@contextmanager
def replaced_by_another_ledger(path: Path) -> Iterator[None]:
    """A good one, in which nothing was ever spent."""
    with moved_away(path):
        with elsewhere(OTHER_LEDGER, path) as other:
            other.communicate()
        assert path.stat().st_size > 0
        yield


@contextmanager
def noise(path: Path) -> Iterator[None]:
    with moved_away(path):
        path.write_bytes(os.urandom(8192))
        yield
