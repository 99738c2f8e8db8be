"""The audit log in a folder of its own: what `append` returned is durable, what it refused is not there.

A writer is a folder. A process takes over a dead writer's folder, if there is one, and continues its chains, so that
the number of chains stays small however many processes come and go. After a failed write the file is cut back to the
last acknowledged frame; after a failed fdatasync, of which nobody can say what reached the disk, the segment is left
for good and a new one begun. When somebody removed the folder, what was written to it is refused, and a new one begun.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from fulcrum_adapters.spool.config import SpoolConfig
from fulcrum_adapters.spool.folder import NOWHERE, Folder, Place, folders, new_folder, sync_directory
from fulcrum_adapters.spool.takeover import Standing, examine, snapshot
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft, RecordRef
from fulcrum_mcp.core.frames import INPUTS, MAX_PAYLOAD, RECORD, frame
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import OpenCall

__all__ = ["Spool"]

_SNAPSHOT_EVERY = 4 << 20
"""Bytes between two snapshots: what a takeover has to read."""
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class Block(NamedTuple):
    """Records in their places, and where their chains stood before."""

    drafts: Sequence[RecordDraft]
    refs: Sequence[RecordRef]
    text: bytes
    saved: Mapping[str, tuple[int, str]]


class Spool:
    """An `AuditLog` on disk. Made by `open` or `orphans`; owns the lock from then on, also where it fails."""

    def __init__(self, folder: Folder, lock: int, standing: Standing, config: SpoolConfig) -> None:
        self.writer = folder.writer
        self._folder = folder
        self._lock = lock
        self._config = config
        self._sync = config.durability == "sync"
        self._limit = config.segment_bytes
        self._room = config.max_bytes
        self._older = 0
        self._standing = standing
        self._inherited = tuple(standing.open)
        self._chains = {
            tenant: ChainWriter(folder.writer, tenant, seq, head) for tenant, (seq, head) in standing.heads.items()
        }
        self._place = standing.end
        self._quiet = standing.quiet
        self._sealed = False
        self._removed = False
        self._file = -1
        self._state = -1
        self._begin(config)

    @classmethod
    def open(cls, root: Path, config: SpoolConfig | None = None) -> Self:
        """Take over a dead writer's folder under `root`, else begin a new one. Raises `Unavailable`."""
        config = config or SpoolConfig()
        for folder in folders(root):
            if not folder.retired:
                spool = cls._take_over(folder, config)
                if spool is not None:
                    return spool
        folder, lock = new_folder(root)
        return cls(folder, lock, Standing(), config)

    @classmethod
    def orphans(cls, root: Path, config: SpoolConfig | None = None) -> Iterator[Self]:
        """Each writer that was killed or left calls open, for the caller to finish; given back at the next step."""
        config = config or SpoolConfig()
        for folder in folders(root):
            if folder.state()[2] or not folder.segments():
                continue
            spool = cls._take_over(folder, config)
            if spool is not None:
                with spool:
                    yield spool

    @classmethod
    def settle(cls, folder: Folder) -> None:
        """Bring a dead writer's folder into order: nothing torn, everything in it acknowledged. Idempotent."""
        spool = cls._take_over(folder, SpoolConfig())
        if spool is not None:
            spool.close()

    @classmethod
    def _take_over(cls, folder: Folder, config: SpoolConfig) -> Self | None:
        lock = folder.lock()
        if lock is None:
            return None
        try:
            retired = folder.retired
            if retired and folder.state()[2]:
                os.close(lock)
                return None
            standing = examine(folder)
            if folder.may_have_lost_its_end():
                standing.faults.append("the machine was started anew, without fdatasync its end may be lost")
        except BaseException:
            os.close(lock)
            raise
        if standing.faults or retired:
            return cls._succeed(folder, lock, standing, config)
        return cls(folder, lock, standing, config)

    @classmethod
    def _succeed(cls, old: Folder, old_lock: int, standing: Standing, config: SpoolConfig) -> Self:
        """A new writer in place of one whose chains must not go on; it takes over the open calls."""
        try:
            for fault in standing.faults:
                old.retire(fault)
            folder, lock = new_folder(old.path.parent)
            spool = cls(folder, lock, Standing(open=standing.open), config)
            old.write_state(standing.end, standing.snapshot, clean=True)
        finally:
            os.close(old_lock)
        return spool

    def _begin(self, config: SpoolConfig) -> None:
        try:
            self._state = os.open(self._folder.path / "state", os.O_RDWR | os.O_CREAT, 0o600)
            if self._place.segment:
                self._file = os.open(self._folder.segment(self._place.segment), os.O_RDWR)
                if self._sync:
                    for number in self._folder.segments():
                        _sync_file(self._folder.segment(number))
                    sync_directory(self._folder.path)
            else:
                self._rotate()
            self._folder.sign_in(self._lock, config.durability)
            self._folder.write_state(self._place, self._standing.snapshot, clean=False)
            self._older = self._weigh()
        except OSError as exc:
            self._drop()
            raise Unavailable(_failed(self._folder.path, exc)) from exc
        except Unavailable:
            self._drop()
            raise

    @property
    def open_calls(self) -> Sequence[OpenCall]:
        """Calls that the writer before this process forwarded and did not finish, as long as nobody finished them."""
        calls = self._standing.open
        return [calls[key] for key in self._inherited if key in calls]

    def heads(self) -> Mapping[str, int]:
        """See `AuditLog.heads`."""
        return {f"{self.writer}.{tenant}": seq for tenant, (seq, _) in self._standing.heads.items()}

    def size(self) -> int:
        """Bytes of all its segments, for those who watch: what `max_bytes` bounds."""
        return self._weigh() + self._place.offset

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        """See `AuditLog.append`."""
        block = self.prepare(drafts)
        written = False
        try:
            self.write(block)
            written = True
        finally:
            self.conclude(block, written=written)
        return block.refs

    def prepare(self, drafts: Sequence[RecordDraft]) -> Block:
        """See `AuditLog.prepare`."""
        if self._removed:
            self._begin_anew()
        if self._file < 0:
            raise Unavailable("the audit spool is closed; nothing is forwarded without its record")
        saved = {draft.tenant: self._chain(draft.tenant).place for draft in drafts}
        try:
            text, refs = _frames(drafts, self._chains)
        except BaseException:
            self._set_back(saved)
            raise
        return Block(drafts, refs, text, saved)

    def write(self, block: Block) -> None:
        """See `AuditLog.write`."""
        self._write(block.text)

    def conclude(self, block: Block, *, written: bool) -> None:
        """See `AuditLog.conclude`."""
        if not written:
            self._set_back(block.saved)
            self._removed = self._file >= 0 and not self._linked()
            return
        standing = self._standing
        for tenant in block.saved:
            standing.heads[tenant] = self._chains[tenant].place
        for draft in block.drafts:
            standing.note(draft.type, draft.subject, draft.tenant, draft.data)

    def _set_back(self, saved: Mapping[str, tuple[int, str]]) -> None:
        for tenant, place in saved.items():
            self._chains[tenant].place = place

    def _linked(self) -> bool:
        """Are our files still in the folder? What is written to removed ones is lost without an error."""
        return all(os.fstat(file).st_nlink for file in (self._file, self._state, self._lock))

    def _begin_anew(self) -> None:
        """Another writer, other chains: those of the removed folder cannot be continued by anybody."""
        folder, lock = new_folder(self._folder.path.parent)
        self._drop()
        self._folder, self._lock, self.writer = folder, lock, folder.writer
        self._standing = Standing(open=self._standing.open)
        self._chains = {}
        self._place = NOWHERE
        self._older = 0
        self._sealed = False
        self._begin(self._config)
        self._removed = False

    def _chain(self, tenant: str) -> ChainWriter:
        chain = self._chains.get(tenant)
        if chain is None:
            chain = self._chains[tenant] = ChainWriter(self.writer, tenant)
        return chain

    def close(self) -> None:
        """Leave a snapshot, so that the next writer begins at once; give up the lock. Idempotent."""
        if self._file < 0:
            return
        try:
            if not self._quiet and not self._sealed and not self._removed:
                place = self._place
                self._put(snapshot(self.writer, self._standing, place))
                self._standing.snapshot = place
            self._folder.write_state(self._place, self._standing.snapshot, clean=not self._standing.open)
        except (Unavailable, OSError):
            pass  # the next writer reads the whole segment instead
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop(self) -> None:
        for descriptor in (self._file, self._state, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._state = self._lock = -1

    def _write(self, block: bytes) -> None:
        if self._older + self._place.offset + len(block) > self._room:
            self._older = self._weigh()
            if self._older + self._place.offset + len(block) > self._room:
                raise Unavailable(
                    f"the audit spool {self._folder.path} holds {self._room} bytes that the store has not confirmed;"
                    " calls are denied until the processor works again (or audit.max_spool is raised)"
                )
        if self._sealed or (not self._quiet and self._place.offset + len(block) > self._limit):
            self._sealed = True  # whatever is left of a failed attempt says where this segment ended: it must stay true
            try:
                self._rotate()
            except OSError as exc:
                raise Unavailable(_failed(self._folder.path, exc)) from exc
        place = self._place
        if place.offset - self._standing.snapshot.offset > _SNAPSHOT_EVERY:
            self._put(snapshot(self.writer, self._standing, place) + block)
            self._standing.snapshot = place
            self._mark_snapshot()
        else:
            self._put(block)
        self._quiet = False

    def _mark_snapshot(self) -> None:
        with contextlib.suppress(OSError):  # then a takeover reads from the one before
            os.pwrite(self._state, self._standing.snapshot.pack().to_bytes(8, sys.byteorder), 8)

    def _weigh(self) -> int:
        """Bytes in the segments before the one that is written."""
        sizes = 0
        for number in self._folder.segments():
            if number != self._place.segment:
                with contextlib.suppress(FileNotFoundError):
                    sizes += self._folder.segment(number).stat().st_size
        return sizes

    def _put(self, block: bytes) -> None:
        segment, offset = self._place
        written = 0
        try:
            while written < len(block):
                written += os.pwrite(self._file, block[written:] if written else block, offset + written)
            if self._sync:
                _fdatasync(self._file)
        except OSError as exc:
            self._take_back(offset, in_doubt=written == len(block))
            raise Unavailable(_failed(self._folder.path, exc)) from exc
        if not self._linked():
            self._take_back(offset, in_doubt=False)
            raise Unavailable(
                f"the audit spool {self._folder.path} was removed; a new one is begun, send the call again"
            )
        self._place = Place(segment, offset + written)
        self._acknowledge()

    def _take_back(self, offset: int, *, in_doubt: bool) -> None:
        """Cut a refused write off; where that is not certain, never write to this segment again."""
        try:
            os.ftruncate(self._file, offset)
        except OSError:
            in_doubt = True
        self._sealed = self._sealed or in_doubt

    def _acknowledge(self) -> None:
        with contextlib.suppress(OSError):  # readers lag until the next one; the records are durable already
            os.pwrite(self._state, self._place.pack().to_bytes(8, sys.byteorder), 0)

    def _rotate(self) -> None:
        """Begin the next segment with a snapshot; the old one stays in use until it is durable."""
        number = self._place.segment + 1
        path = self._folder.segment(number)
        block = snapshot(self.writer, self._standing, self._place)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if os.write(file, block) != len(block):
                raise OSError(28, "No space left on device")  # noqa: TRY301 - undone below like any other
            if self._sync:
                _fdatasync(file)
                sync_directory(self._folder.path)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._older += self._place.offset
        self._place = Place(number, len(block))
        self._standing.snapshot = Place(number, 0)
        self._quiet = True
        self._sealed = False
        self._acknowledge()
        self._mark_snapshot()


def _frames(drafts: Sequence[RecordDraft], chains: Mapping[str, ChainWriter]) -> tuple[bytes, list[RecordRef]]:
    parts: list[bytes] = []
    refs: list[RecordRef] = []
    for draft in drafts:
        line, ref = chains[draft.tenant].add(draft)
        parts.append(frame(RECORD, line))
        if draft.inputs is not None:
            parts.append(frame(INPUTS, b"%b\n%b" % (draft.id.encode(), draft.inputs)))
        refs.append(ref)
    if max(map(len, parts), default=0) > MAX_PAYLOAD:
        raise Unavailable(f"a record is larger than {MAX_PAYLOAD} bytes and cannot be kept")
    return b"".join(parts), refs


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        _fdatasync(file)
    finally:
        os.close(file)


def _failed(path: Path, exc: OSError) -> str:
    return (
        f"the audit spool {path} cannot be written: {exc.strerror}; calls are denied until the disk has room and works"
    )
