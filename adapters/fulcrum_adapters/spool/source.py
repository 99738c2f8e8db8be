"""Reads all writers' segments for the processor, living writers' too, and removes what the store has confirmed.

Never beyond what a living writer has acknowledged. What cannot be read is skipped, reported and kept: its segment is
moved aside instead of being removed, and nobody continues that writer's chains.
"""

import json
import os
from pathlib import Path

from fulcrum_adapters.spool.folder import Folder, Place, folders
from fulcrum_adapters.spool.frames import read_frame
from fulcrum_adapters.spool.spool import Spool
from fulcrum_mcp.core.frames import HEADER, INPUTS, MAX_PAYLOAD, RECORD, resync, split
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import SpoolChunk, SpoolPosition

__all__ = ["SpoolReader"]


class SpoolReader:
    """A `SpoolSource` over one root; damaged segments end in `aside`."""

    def __init__(self, root: Path, aside: Path, chunk_bytes: int = 256 << 10) -> None:
        self._root = root
        self._aside = aside
        self._chunk = chunk_bytes
        self._ends: dict[tuple[str, int], int] = {}

    def writers(self) -> list[str]:
        """See `SpoolSource`."""
        return [folder.writer for folder in folders(self._root)]

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        """See `SpoolSource`."""
        folder = Folder(self._root / writer)
        try:
            return self._read(folder, position)
        except FileNotFoundError:
            return None  # removed by whoever was the processor before
        except OSError as exc:
            raise Unavailable(f"the audit spool {folder.path} cannot be read: {exc.strerror}") from exc

    def _read(self, folder: Folder, position: SpoolPosition) -> SpoolChunk | None:
        self._catch_up(folder)
        committed = folder.state()[0]
        segments = folder.segments()  # after `committed`: a segment is there before anything in it is acknowledged
        at = Place(*position)
        if at >= committed or not segments:
            return None
        faults: list[str] = []
        while at < committed:
            end = self._end(folder, segments, at.segment, committed)
            if end is not None and at.offset < end:
                chunk = self._chunk_at(folder, at, end, faults)
                chunk.whole = Place(*chunk.position) >= committed
                return chunk
            later = [number for number in segments if number > at.segment]
            if not later:
                break
            if end is None and at.segment and at.offset:
                faults.append(f"{folder.segment(at.segment)} is gone, it was read up to byte {at.offset}")
            at = Place(later[0], 0)
        return SpoolChunk([], [], [], SpoolPosition(*at), faults) if at > Place(*position) else None

    def _catch_up(self, folder: Folder) -> None:
        """A dead writer's end may be torn or not acknowledged: take it over for a moment, unless it lives."""
        segments = folder.segments()
        if segments and Place(segments[-1], folder.segment(segments[-1]).stat().st_size) != folder.state()[0]:
            Spool.settle(folder)

    def _end(self, folder: Folder, segments: list[int], number: int, committed: Place) -> int | None:
        """How much of a segment counts; None when it is not there."""
        if number not in segments:
            return None
        if number == committed.segment:
            return min(committed.offset, folder.segment(number).stat().st_size)
        known = self._ends.get((folder.writer, number))
        if known is None:
            known = folder.segment(number).stat().st_size
            begin = read_frame(folder.segment(number + 1), 0) if number + 1 in segments else None
            if begin is not None:
                segment, offset = json.loads(begin[1])["previous"]
                known = min(known, offset) if segment == number else known
            self._ends[folder.writer, number] = known
        return known

    def _chunk_at(self, folder: Folder, at: Place, end: int, faults: list[str]) -> SpoolChunk:
        chunk = SpoolChunk([], [], [], SpoolPosition(*at), faults)
        file = os.open(folder.segment(at.segment), os.O_RDONLY)
        try:
            buffer = os.pread(file, min(self._chunk, end - at.offset), at.offset)
            frames, stop, bad = split(buffer)
            if not frames and not bad:  # one frame larger than a chunk
                length = HEADER.unpack_from(buffer)[0] if len(buffer) >= HEADER.size else MAX_PAYLOAD
                buffer = os.pread(file, min(HEADER.size + length, end - at.offset), at.offset)
                frames, stop, bad = split(buffer)
            if not frames and (bad or len(buffer) == end - at.offset):
                buffer = os.pread(file, end - at.offset, at.offset)
                stop = self._skip(folder, at, buffer, chunk)
        finally:
            os.close(file)
        _sort(frames, chunk)
        chunk.position = SpoolPosition(at.segment, at.offset + stop)
        return chunk

    def _skip(self, folder: Folder, at: Place, buffer: bytes, chunk: SpoolChunk) -> int:
        further = resync(buffer, 0)
        stop = len(buffer) if further is None else further
        fault = f"{folder.segment(at.segment)}: bytes {at.offset} to {at.offset + stop} are damaged"
        folder.mark_damaged(at.segment)
        folder.retire(fault)
        chunk.faults.append(f"{fault}; the segment will be kept in {self._aside}")
        return stop

    def release(self, writer: str, position: SpoolPosition) -> None:
        """See `SpoolSource`."""
        folder = Folder(self._root / writer)
        try:
            last = min(folder.state()[0].segment, position[0])
            for number in folder.segments():
                if number < last:
                    self._remove(folder, number)
            if folder.retired:
                self._remove_retired(folder, Place(*position))
        except FileNotFoundError:
            return
        except OSError as exc:
            raise Unavailable(f"the audit spool {folder.path} cannot be tidied up: {exc.strerror}") from exc

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        """See `SpoolSource`."""
        folder = Folder(self._root / writer)
        try:
            folder.mark_damaged(position.segment)
            folder.retire(why)
        except OSError as exc:
            raise Unavailable(f"the audit spool {folder.path} cannot be marked: {exc.strerror}") from exc

    def _remove(self, folder: Folder, number: int) -> None:
        path = folder.segment(number)
        if folder.is_damaged(number):
            self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.rename(self._aside / f"{folder.writer}-{path.name}")
        else:
            path.unlink()
        path.with_suffix(".damaged").unlink(missing_ok=True)
        self._ends.pop((folder.writer, number), None)

    def _remove_retired(self, folder: Folder, position: Place) -> None:
        """A dead writer that nobody will continue, wholly in the store: nothing of it is needed."""
        committed, _, clean = folder.state()
        if not clean or position < committed:
            return
        lock = folder.lock()
        if lock is None:
            return
        try:
            for number in folder.segments():
                self._remove(folder, number)
            for path in sorted(folder.path.iterdir(), key=lambda path: path.name == "lock"):
                path.unlink()
            folder.path.rmdir()
        finally:
            os.close(lock)


def _sort(frames: list[tuple[int, bytes]], chunk: SpoolChunk) -> None:
    lines = chunk.lines
    for kind, payload in frames:
        if kind == RECORD:
            lines.append(payload)
        elif kind == INPUTS:
            name, _, text = payload.partition(b"\n")
            chunk.inputs.append((name.decode(), text))
        else:
            heads = json.loads(payload)["heads"]
            chunk.heads.append((len(lines), {tenant: (seq, head) for tenant, (seq, head) in heads.items()}))
