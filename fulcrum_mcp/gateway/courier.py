"""Carries the records of this host from the spools to the stream, and lets go of what the archive has confirmed.

Nothing is taken for carried because it was published: a stream can lose what it acknowledged. What is not confirmed,
and is not in the stream any more, is sent again. Of several processes that share a data folder one carries; when it
dies another begins where the archive stands. Nothing leaves the spool but by a confirmation; what can never be
confirmed, because a record before it is lost, is kept aside for good.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from itertools import chain as joined
from typing import Final, NamedTuple

import structlog

from fulcrum_mcp.errors import FulcrumError, Unavailable
from fulcrum_mcp.gateway.complaint import Complaint
from fulcrum_mcp.gateway.parcels import Packer
from fulcrum_mcp.gateway.under_way import Haul, Mark, Writer
from fulcrum_mcp.ports import AuditStream, Leadership, Parcel, SpoolChunk, SpoolPosition, SpoolSource

__all__ = ["Courier", "CourierConfig", "CourierLag"]

_log = structlog.get_logger("fulcrum.courier")

_WAITS: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Seconds between two tries while the stream does not answer."""
_CHUNKS: Final = 4
"""Pieces of one writer's spool in one turn."""
_LIST_EVERY: Final = 0.2
"""Seconds between two looks for new writers."""
_MERGE_SECONDS: Final = 1.0
_MERGE_BYTES: Final = 256 << 10
_SLACK: Final = 2.0
"""Seconds by which a parcel must be older than the oldest one in the stream to be missed there."""


@dataclass(frozen=True, slots=True)
class CourierConfig:
    """Times in seconds, sizes in bytes."""

    linger: float = 0.05
    """Between two looks: what comes meanwhile travels together. None while there is more at hand."""
    idle: float = 0.1
    """Between two looks when nothing was new for a while."""
    parcel: int = 256 << 10
    window: int = 64 << 20
    """What may be published and not confirmed; the rest waits in the spool."""
    resend_after: float = 10.0
    doubt_after: float = 600.0
    """Then it is sent again whatever the stream seems to hold."""
    gap_after: float = 60.0
    """How long a record may be missing before those behind it are kept aside."""
    most_tries: int = 6
    """How often processors may take records without confirming them, before these are kept aside."""
    tidy_every: float = 5.0
    standby: float = 1.0
    breath: float = 0.0002


class CourierLag(NamedTuple):
    """What was published and is not confirmed."""

    records: int
    size: int
    seconds: float
    """Since when the oldest of it waits; 0.0 when nothing does."""


class Courier:
    """`run` it as a task on the gateway's loop, or `start` and `close` it."""

    def __init__(
        self, source: SpoolSource, stream: AuditStream, leadership: Leadership, config: CourierConfig | None = None
    ) -> None:
        self._source = source
        self._stream = stream
        self._leadership = leadership
        self._config = config or CourierConfig()
        self._writers: dict[str, Writer] = {}
        self._stored: dict[str, int] = {}
        self._gaps: dict[str, str] = {}
        self._names: tuple[str, ...] = ()
        self._listed = self._heard = self._tidied = self._checked = 0.0
        self._closing = self._more = False
        self._task: asyncio.Task[None] | None = None
        self._complaint = Complaint()
        self.leading = False
        """Is it this process that carries?"""
        self.failing: str | None = None
        """Why nothing is carried at the moment; None when all is well."""
        self.faults: list[str] = []
        """What was wrong in the spools since the start; the newest last, a hundred at most."""
        self.resent = 0
        """Parcels that were sent again because the stream had lost them."""
        stream.watch(self._told)

    def start(self) -> None:
        """Begin, as a task of the running loop."""
        self._task = asyncio.get_running_loop().create_task(self.run())

    def _told(self, chain: str, seq: int) -> None:
        self._heard = time.monotonic()
        if seq > self._stored.get(chain, 0):
            self._stored[chain] = seq

    def lag(self) -> CourierLag:
        """What is under way; asked by any thread."""
        marks = [mark for writer in tuple(self._writers.values()) for mark in tuple(writer.marks)]
        oldest = min((mark.since for mark in marks), default=None)
        waiting = 0.0 if oldest is None else time.monotonic() - oldest
        return CourierLag(sum(mark.records for mark in marks), sum(mark.size for mark in marks), waiting)

    async def run(self) -> None:
        """Carry until `close`. Whatever fails is said and tried again."""
        tries = 0
        pause = self._config.linger
        while not self._closing:
            try:
                if not await self._lead():
                    await asyncio.sleep(self._config.standby)
                    continue
                moved = await self._turn()
            except Exception as exc:  # noqa: BLE001 - carrying must not end while the gateway runs
                self._failed(exc)
                await asyncio.sleep(_WAITS[min(tries, len(_WAITS) - 1)])
                tries += 1
                continue
            tries = 0
            self.failing = None
            if self._complaint.over():
                _log.info("records are carried again")
            pause = self._config.linger if moved else min(pause * 1.5, self._config.idle)
            await asyncio.sleep(0 if self._more else pause)

    def _failed(self, exc: Exception) -> None:
        what = str(exc) or type(exc).__name__
        self.failing = what
        if self._complaint.due(what):
            _log.warning("records are not carried", reason=what, exc_info=not isinstance(exc, FulcrumError))

    async def _lead(self) -> bool:
        if not self.leading and self._leadership.acquire():
            self._writers.clear()
            self._gaps.clear()
            self._listed = 0.0
            await self._ask_stored()
            self.leading = True
        return self.leading

    async def _ask_stored(self) -> None:
        for chain, seq in (await self._stream.stored()).items():
            self._stored[chain] = max(seq, self._stored.get(chain, 0))

    async def _turn(self) -> bool:
        """Send what is new, let go of what is confirmed, look after the rest; was anything new?"""
        hauls = await asyncio.to_thread(self._gather)
        self._more = any(haul.more for haul in hauls)
        try:
            await self._send([parcel for haul in hauls for parcel in haul.load.parcels])
        except BaseException:
            for haul in hauls:  # a line that was held back went with them: read it again
                writer = self._writers[haul.writer]
                writer.position, writer.packer.held = writer.begin, None
            raise
        now = time.monotonic()
        for haul in hauls:
            self._mark(haul, now)
        self._confirm()
        if now - self._tidied > self._config.tidy_every or any(
            writer.confirmed.segment != writer.released.segment for writer in self._writers.values()
        ):
            every, self._tidied = now - self._tidied > self._config.tidy_every, now
            await asyncio.to_thread(self._release, every=every)
        await self._look_after(now)
        return bool(hauls)

    async def _send(self, parcels: list[Parcel]) -> None:
        if parcels:
            await self._stream.publish(parcels)

    def _gather(self) -> list[Haul]:
        """On a thread: what is new in all spools, as far as the window has room."""
        room = self._config.window - self.lag().size
        hauls: list[Haul] = []
        if time.monotonic() - self._listed > _LIST_EVERY:
            self._listed = time.monotonic()
            self._names = tuple(self._source.writers())
            for gone in set(self._writers).difference(self._names):
                if not self._writers[gone].marks:
                    del self._writers[gone]
        for name in self._names:
            writer = self._writers.get(name)
            if writer is None:
                packer = Packer(name, self._config.parcel, self._config.breath)
                writer = self._writers[name] = Writer(packer)
            haul = self._read(name, writer, room)
            if haul is not None:
                hauls.append(haul)
                room -= haul.load.size
        return hauls

    def _read(self, name: str, writer: Writer, room: int) -> Haul | None:
        """What is new in one writer's spool."""
        if room <= 0:
            return None
        chunks: list[SpoolChunk] = []
        position = last = writer.position
        more = True
        while more and len(chunks) < _CHUNKS:
            try:
                chunk = self._source.read(name, position)
            except Unavailable as exc:  # the other writers go on
                self._fault(str(exc))
                break
            more = chunk is not None and not chunk.whole
            if chunk is not None:
                chunks.append(chunk)
                last, position = position, chunk.position
        if not chunks and (more or writer.packer.held is None):
            return None
        lines = list(joined.from_iterable(chunk.lines for chunk in chunks))
        inputs = list(joined.from_iterable(chunk.inputs for chunk in chunks))
        load = writer.packer.pack(lines, inputs, self._stored, hold=more)
        segments = {chunk.position.segment for chunk in chunks} | {writer.begin.segment}
        for fault in joined.from_iterable(chunk.faults for chunk in chunks):
            self._fault(fault)
        for fault in load.refused:
            self._fault(f"spool of {name}: {fault}")
            self._keep(name, segments, fault)
        further = position if writer.packer.held is None else last
        return Haul(name, writer.begin, position, further, segments, load, more)

    def _keep(self, name: str, segments: set[int], why: str) -> None:
        try:
            for segment in segments - {0}:
                self._source.keep(name, SpoolPosition(segment, 0), why)
        except Unavailable as exc:
            self._fault(str(exc))

    def _fault(self, what: str) -> None:
        if what not in self.faults:
            self.faults[:] = [*self.faults[-99:], what]
            _log.error("fault in a spool", what=what)

    def _mark(self, haul: Haul, now: float) -> None:
        writer, load = self._writers[haul.writer], haul.load
        writer.position, writer.begin = haul.end, haul.further
        for chain, why in load.gaps.items():
            self._gaps.setdefault(chain, why)
        last = writer.marks[-1] if writer.marks else None
        near = last is not None and now - last.since < _MERGE_SECONDS
        if last is not None and near and last.size + load.size < _MERGE_BYTES:
            last.end, last.at = haul.end, now
            last.segments |= haul.segments
            last.ends.update(load.ends)
            last.records += load.records
            last.size += load.size
        else:
            size = load.records, load.size
            writer.marks.append(Mark(haul.start, haul.end, haul.segments, load.ends, *size, now, now))

    def _missing(self, mark: Mark) -> list[str]:
        return [chain for chain, seq in mark.ends.items() if self._stored.get(chain, 0) < seq]

    def _confirm(self) -> None:
        for writer in self._writers.values():
            while writer.marks and not self._missing(writer.marks[0]):
                writer.confirmed = writer.marks.popleft().end

    def _release(self, *, every: bool) -> None:
        """On a thread: remove what is confirmed; every now and then also what nobody will continue."""
        for name, writer in list(self._writers.items()):
            if every or writer.confirmed.segment != writer.released.segment:
                try:
                    self._source.release(name, writer.confirmed)
                except Unavailable as exc:  # it is tried again
                    self._fault(str(exc))
                else:
                    writer.released = writer.confirmed

    async def _look_after(self, now: float) -> None:
        """Send again what is missed; keep aside what will never be confirmed."""
        late = [
            (name, mark)
            for name, writer in self._writers.items()
            for mark in writer.marks
            if now - mark.at > self._patience(mark)
        ]
        if not late or now - self._checked < min(1.0, self._config.resend_after):
            return
        self._checked = now
        await self._ask_stored()
        self._confirm()
        oldest = await self._stream.oldest()
        for name, mark in late:
            age = time.monotonic() - mark.at
            if not self._missing(mark) or (self._give_up(name, mark)):
                continue
            if oldest is None or age > oldest + _SLACK or age > self._config.doubt_after:
                await self._send_again(name, mark)

    def _patience(self, mark: Mark) -> float:
        """Longer each time: it may be stored, and only the word of it missing."""
        return min(self._config.resend_after * 2.0**mark.tries, self._config.doubt_after)

    def _give_up(self, name: str, mark: Mark) -> bool:
        """What will never be confirmed stays on this disk for good; only while processors confirm what others sent."""
        config, now = self._config, time.monotonic()
        if self._heard < mark.since + config.gap_after or self._heard < now - config.gap_after:
            return False
        for chain in self._missing(mark):
            why = self._gaps.get(chain)
            if why is None and mark.tries < config.most_tries:
                continue
            why = f"chain {chain}: {why or 'processors take its records and do not confirm them; see the dead letters'}"
            self._fault(why)
            self._keep(name, mark.segments, why)
            mark.ends.pop(chain)
        return not self._missing(mark)

    async def _send_again(self, name: str, mark: Mark) -> None:
        parcels = await asyncio.to_thread(self._read_again, name, mark)
        if not parcels and self._missing(mark):
            self._fault(f"spool of {name}: {mark.records} records are gone from it that nobody has confirmed")
        await self._send(parcels)
        mark.at = time.monotonic()
        mark.tries += 1
        self.resent += len(parcels)
        _log.warning("records sent again", writer=name, parcels=len(parcels), reason="the stream had lost them")

    def _read_again(self, name: str, mark: Mark) -> list[Parcel]:
        packer = Packer(name, self._config.parcel, self._config.breath)
        position, parcels = mark.start, list[Parcel]()
        attempt = int(time.time())  # so that no earlier attempt, of whatever process, is taken for the same
        while position < mark.end or packer.held is not None:
            chunk = self._source.read(name, position)
            lines, inputs = ((), ()) if chunk is None else (chunk.lines, chunk.inputs)
            parcels += packer.pack(lines, inputs, self._stored, attempt=attempt, hold=chunk is not None).parcels
            if chunk is None:
                break
            position = chunk.position
        return parcels

    async def close(self, patience: float = 5.0) -> bool:
        """Send what is still in the spools and wait for its confirmation; stop after `patience` seconds at the latest.

        True when this process carried and everything is confirmed. Idempotent.
        """
        self._closing = True
        deadline = asyncio.get_running_loop().time() + patience
        task, self._task = self._task, None
        if task is not None:
            done, _ = await asyncio.wait([task], timeout=patience)
            if not done:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        whole = False
        if self.leading:
            with contextlib.suppress(TimeoutError, FulcrumError):
                async with asyncio.timeout_at(deadline):
                    while await self._turn() or self.lag().records:  # noqa: ASYNC110 - the turn is the work
                        await asyncio.sleep(self._config.linger)
                    whole = True
            self.leading = False
        self._leadership.release()
        return whole
