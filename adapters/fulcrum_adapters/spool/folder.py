"""One writer's folder: its lock, its segments, and how far it is written.

`lock` is held under flock while the writer lives and says who it is. `state` says how far the segments are
acknowledged: whoever reads a living writer's folder must not go beyond, because a failed write is taken back.
"""

import fcntl
import json
import os
import re
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fulcrum_mcp.errors import Unavailable

__all__ = ["NOWHERE", "Folder", "Place", "boot_id", "folders", "new_folder", "sync_directory"]

_STATE = struct.Struct("=QQQ")
_OFFSET = 40
_CLEAN = 1
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_WRITER = re.compile(rf"w[{_ALPHABET}]{{7}}")


class Place(NamedTuple):
    """A byte in a writer's segments; ordered."""

    segment: int
    offset: int

    def pack(self) -> int:
        """As one word, so that it is written and read whole."""
        return self.segment << _OFFSET | self.offset

    @classmethod
    def unpack(cls, word: int) -> "Place":
        """The opposite of pack."""
        return cls(word >> _OFFSET, word & (1 << _OFFSET) - 1)


NOWHERE = Place(0, 0)
"""Before the first segment."""


class Folder:
    """Paths and small state files of one writer. Holds no lock by itself."""

    __slots__ = ("path", "writer")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = path.name

    def lock(self) -> int | None:
        """The lock's descriptor, or None while the writer lives (or the folder is gone)."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # the folder was removed meanwhile
                raise BlockingIOError
        except OSError as exc:
            os.close(descriptor)
            if isinstance(exc, BlockingIOError):
                return None
            raise
        return descriptor

    def sign_in(self, lock: int, durability: str) -> None:
        """Say in the lock file who holds it."""
        text = json.dumps({"pid": os.getpid(), "durability": durability, "boot": boot_id()}).encode()
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)
        if durability == "os":
            os.fsync(lock)  # what says that the end may be lost must not be lost itself

    def may_have_lost_its_end(self) -> bool:
        """Was it last written without fdatasync, before the machine started anew?"""
        try:
            last = json.loads((self.path / "lock").read_bytes() or b"{}")
        except ValueError:
            return True
        return last.get("durability") == "os" and (last.get("boot") is None or last.get("boot") != boot_id())

    def segments(self) -> list[int]:
        """Numbers of the segments that are there, ascending."""
        try:
            names = [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit())

    def segment(self, number: int) -> Path:
        """Where a segment lies."""
        return self.path / f"{number:08d}.seg"

    def state(self) -> tuple[Place, Place, bool]:
        """(acknowledged up to, place of the last snapshot, given up with no open call)."""
        try:
            raw = (self.path / "state").read_bytes()
        except FileNotFoundError:
            raw = b""
        if len(raw) != _STATE.size:
            return Place(0, 0), Place(0, 0), False
        committed, snapshot, flags = _STATE.unpack(raw)
        return Place.unpack(committed), Place.unpack(snapshot), bool(flags & _CLEAN)

    def write_state(self, committed: Place, snapshot: Place, *, clean: bool) -> None:
        """All of it; never fails for want of space in a way that matters, the next takeover computes it anew."""
        descriptor = os.open(self.path / "state", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, _STATE.pack(committed.pack(), snapshot.pack(), _CLEAN if clean else 0), 0)
        finally:
            os.close(descriptor)

    @property
    def retired(self) -> bool:
        """Nobody may continue its chains: something in it is damaged or lost."""
        return (self.path / "retired").exists()

    def retire(self, why: str) -> None:
        """For good; the reasons are kept. Idempotent per reason."""
        path = self.path / "retired"
        if path.exists() and why in path.read_text("utf-8"):
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(why + "\n")

    def mark_damaged(self, number: int) -> None:
        """This segment is kept aside, never removed."""
        (self.path / f"{number:08d}.damaged").touch(mode=0o600)

    def is_damaged(self, number: int) -> bool:
        """See mark_damaged."""
        return (self.path / f"{number:08d}.damaged").exists()


def folders(root: Path) -> Iterator[Folder]:
    """All writers' folders, living and dead, in a stable order."""
    try:
        names = sorted(path.name for path in root.iterdir() if _WRITER.fullmatch(path.name) and path.is_dir())
    except FileNotFoundError:
        return
    except OSError as exc:
        raise Unavailable(f"the audit spool {root} cannot be read: {exc.strerror}; repair the folder") from exc
    for name in names:
        yield Folder(root / name)


def new_folder(root: Path) -> tuple[Folder, int]:
    """A folder of a new writer, locked. The id is random: chains are never begun twice, on whatever machine."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            folder = Folder(root / ("w" + "".join(secrets.choice(_ALPHABET) for _ in range(7))))
            try:
                folder.path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            lock = folder.lock()
            if lock is not None:
                sync_directory(root)
                return folder, lock
    except OSError as exc:
        raise Unavailable(f"the audit spool {root} cannot be made: {exc.strerror}; free or repair the disk") from exc


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def boot_id() -> str | None:
    """Changes whenever the machine starts; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
