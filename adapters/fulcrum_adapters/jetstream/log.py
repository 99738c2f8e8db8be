"""The audit log without a disk: a record is durable once the stream has acknowledged it.

When no acknowledgement comes, nobody knows whether the records arrived. The calls are denied, and the records are kept
and sent again, the same bytes under the same name, until it is certain that they arrived; until then nothing more is
chained. So a chain never has two records at one place, and no gap. What was decided in them and denied for want of an
answer is corrected by a `finished` record right behind, which `correct` makes.
"""

import asyncio
import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import structlog

from fulcrum_adapters.jetstream.acks import AT_ONCE
from fulcrum_adapters.jetstream.config import JetStreamConfig
from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_adapters.jetstream.seal import Seal
from fulcrum_adapters.jetstream.stream import JetStreamAuditStream, Letters
from fulcrum_mcp.core.audit import ChainWriter, RecordDraft, RecordRef
from fulcrum_mcp.core.frames import INPUTS, RECORD, frame
from fulcrum_mcp.errors import FulcrumError, Unavailable
from fulcrum_mcp.ports import OpenCall, Parcel

__all__ = ["JetStreamLog"]

_log = structlog.get_logger("fulcrum.nats")

_SECONDS: Final = 0.5
"""For an acknowledgement; the journal waits little longer."""
_AGAIN: Final = 0.25
_LEAVING: Final = 2.0
_DECIDED: Final = "dev.fulcrum.tool_call.decided"
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_NO_STREAM: Final = 503
_CLOSED: Final = "the audit log is closed; nothing is forwarded without its record"

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Block:
    """Records in their places, and where their chains stood before."""

    drafts: Sequence[RecordDraft]
    refs: Sequence[RecordRef]
    parcels: Sequence[Parcel]
    saved: Mapping[str, tuple[int, str]]
    corrected: Sequence[OpenCall]
    sent: bool = False
    """Some of it may be on its way."""
    doubtful: bool = False


class JetStreamLog:
    """An `AuditLog` with a thread of its own for the connection. Its writer is new with every process."""

    def __init__(
        self,
        config: JetStreamConfig,
        seal: Seal,
        correct: Callable[[OpenCall], RecordDraft],
        seconds: float = _SECONDS,
        barred: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`correct` makes the `finished` record of a call whose `decided` one is there though it was denied.

        `barred`: why nothing may be sent now; None: it may.
        """
        self.writer = "w" + "".join(secrets.choice(_ALPHABET) for _ in range(7))
        self._place = config.place
        self._correct = correct
        self._barred = barred
        self._seconds = seconds
        self._chains: dict[str, ChainWriter] = {}
        self._heads: dict[str, int] = {}
        self._lock = threading.Lock()
        self._doubt: _Block | None = None
        self._denied: list[OpenCall] = []
        """Calls to be corrected with the next block."""
        self._arrived: dict[str, RecordRef] = {}
        """Records of a block that was refused and arrived all the same: they may be asked for again."""
        self._closed = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fulcrum-stream-log", daemon=True)
        self._thread.start()
        self._connection, self._stream = self._ask(self._open(config, seal)).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _ask(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self, config: JetStreamConfig, seal: Seal) -> tuple[Connection, JetStreamAuditStream]:
        connection = Connection(config, f"fulcrum {self.writer}")
        stream = JetStreamAuditStream(connection, seal, self._seconds)
        connection.start()
        return connection, stream

    def ready(self, seconds: float | None = None) -> Self:
        """Wait for the connection. Raises `Unavailable`."""
        self._ask(self._connection.ready(seconds)).result()
        return self

    def heads(self) -> Mapping[str, int]:
        """See `AuditLog`; with records of which it is not certain yet that they arrived."""
        with self._lock:
            heads = dict(self._heads)
            if self._doubt is not None:
                heads.update((ref.chain, ref.seq) for ref in self._doubt.refs)
            return heads

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        """See `AuditLog`."""
        block = self.prepare(drafts)
        written = False
        try:
            self.write(block)
            written = True
        finally:
            self.conclude(block, written=written)
        known = {ref.id: ref for ref in block.refs}
        return [known[draft.id] for draft in drafts]

    def prepare(self, drafts: Sequence[RecordDraft]) -> _Block:
        """See `AuditLog`."""
        if self._closed:
            raise Unavailable(_CLOSED)
        self._check()
        with self._lock:
            if self._doubt is not None:
                raise Unavailable(
                    f"NATS at {self._place} has not acknowledged records yet; nothing is forwarded until it has"
                )
            denied, self._denied = self._denied, []
            arrived = [self._arrived[draft.id] for draft in drafts if draft.id in self._arrived]
            fresh = [draft for draft in drafts if draft.id not in self._arrived]
        drafts = [*map(self._correct, denied), *fresh]
        saved = {draft.tenant: self._chain(draft.tenant).place for draft in drafts}
        try:
            parcels, refs = self._parcels(drafts)
        except BaseException:
            self._set_back(saved)
            self._denied[:0] = denied
            raise
        return _Block(drafts, [*arrived, *refs], parcels, saved, denied)

    def _check(self) -> None:
        if (why := self._barred()) is not None:
            raise Unavailable(why)

    async def _publish(self, block: _Block) -> None:
        letters = await self._stream.sealed(block.parcels)
        self._check()
        block.sent = True
        await self._stream.send(letters)

    def _chain(self, tenant: str) -> ChainWriter:
        chain = self._chains.get(tenant)
        if chain is None:
            chain = self._chains[tenant] = ChainWriter(self.writer, tenant)
        return chain

    def _set_back(self, saved: Mapping[str, tuple[int, str]]) -> None:
        for tenant, place in saved.items():
            self._chains[tenant].place = place

    def _parcels(self, drafts: Sequence[RecordDraft]) -> tuple[list[Parcel], list[RecordRef]]:
        parts: dict[str, list[bytes]] = {}
        places: dict[str, list[int]] = {}
        refs: list[RecordRef] = []
        for draft in drafts:
            line, ref = self._chains[draft.tenant].add(draft)
            mine = parts.setdefault(draft.tenant, [])
            mine.append(frame(RECORD, line))
            if draft.inputs is not None:
                mine.append(frame(INPUTS, b"%b\n%b" % (draft.id.encode(), draft.inputs)))
            places.setdefault(draft.tenant, []).append(ref.seq)
            refs.append(ref)
        parcels = [
            Parcel(tenant, self._chains[tenant].chain, places[tenant][0], places[tenant][-1], b"".join(mine))
            for tenant, mine in parts.items()
        ]
        return parcels, refs

    def write(self, block: _Block) -> None:
        """See `AuditLog`."""
        done: Future[Exception | None] = Future()
        self.begin(block, done.set_result)
        try:
            fault = done.result(self._seconds * 3)
        except TimeoutError as exc:  # the thread of the connection hangs
            fault = self._in_doubt(block, exc)
        if fault is not None:
            raise fault

    def begin(self, block: _Block, told: Callable[[Exception | None], None]) -> None:
        """See `DistantLog`; a block of a usual size is made ready here, and the other thread only sends it."""
        if not block.parcels:
            told(None)
            return
        try:
            self._loop.call_soon_threadsafe(self._start, block, self._stream.few(block.parcels), told)
        except RuntimeError:  # its loop has ended
            told(Unavailable(_CLOSED))
        except Exception as exc:  # noqa: BLE001 - told
            told(exc)

    def _start(self, block: _Block, letters: Letters | None, told: Callable[[Exception | None], None]) -> None:
        """The last look is here, where it is sent: a process that was stopped meanwhile sends nothing."""
        if letters is None or letters.first or len(letters.then) > AT_ONCE:
            task = self._loop.create_task(self._deliver(block, told))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            return
        try:
            self._check()
        except Unavailable as exc:
            told(exc)
            return
        block.sent = True
        self._stream.begin(letters.then, lambda fault: told(self._judged(block, fault)))

    async def _deliver(self, block: _Block, told: Callable[[Exception | None], None]) -> None:
        fault: Exception | None = None
        try:
            async with asyncio.timeout(self._seconds * 2):
                await self._publish(block)
        except Exception as exc:  # noqa: BLE001 - told
            fault = self._judged(block, exc)
        except asyncio.CancelledError:  # by `close`; nobody is left to send it again
            block.doubtful = block.sent
            fault = Unavailable(_CLOSED, doubtful=block.sent)
        told(fault)

    def _judged(self, block: _Block, exc: Exception | None) -> Exception | None:
        """What the journal is told; from now on the block is in doubt, if it is."""
        if exc is None or not block.sent:
            return exc
        certain = isinstance(exc, Unavailable) and not exc.doubtful and not _perhaps(exc)
        return exc if certain else self._in_doubt(block, exc)

    def _in_doubt(self, block: _Block, exc: BaseException) -> Unavailable:
        with self._lock:
            known, block.doubtful = block.doubtful, True
            if not known:
                self._doubt = block
        if not known and not self._closed:
            self._ask(self._resolve(block))
        fault = Unavailable(f"NATS at {self._place}: {exc or 'no acknowledgement in time'}", doubtful=True)
        fault.__cause__ = exc
        return fault

    async def _resolve(self, block: _Block) -> None:
        """Send it again until it is there; the stream takes a second copy for a duplicate."""
        while True:
            await asyncio.sleep(_AGAIN)
            try:
                await self._connection.ready()
                await self._publish(block)
            except FulcrumError as exc:
                _log.info("records still not acknowledged", reason=str(exc))
                continue
            break
        with self._lock:
            self._take(block)
            self._denied += [call for draft in block.drafts if (call := _admitted(draft)) is not None]
            self._arrived = {ref.id: ref for ref in block.refs}
            self._doubt = None
        _log.warning("records that were in doubt have arrived", records=len(block.refs))

    def conclude(self, block: _Block, *, written: bool) -> None:
        """See `AuditLog`; a doubtful block stays where it is in its chains."""
        with self._lock:
            if written:
                self._take(block)
                for ref in block.refs:
                    self._arrived.pop(ref.id, None)
            elif not block.doubtful:
                self._set_back(block.saved)
                self._denied[:0] = block.corrected

    def _take(self, block: _Block) -> None:
        for ref in block.refs:
            self._heads[ref.chain] = max(ref.seq, self._heads.get(ref.chain, 0))

    @property
    def doubtful(self) -> bool:
        """Are there records of which nobody knows whether they arrived?"""
        return self._doubt is not None

    def close(self) -> None:
        """See `AuditLog`; corrections that still wait are written if that is possible at once."""
        if self._closed:
            return
        if self._denied and self._doubt is None:
            with contextlib.suppress(FulcrumError):
                self.append([])
        self._closed = True
        with contextlib.suppress(Exception):
            self._ask(self._leave()).result(_LEAVING)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LEAVING)

    async def _leave(self) -> None:
        await self._stream.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def _perhaps(exc: Unavailable) -> bool:
    """Only a connection that is not there, and a subject that nobody listens on, are certain."""
    return isinstance(exc, Refused) and not (exc.status == _NO_STREAM and exc.number == 0)


def _admitted(draft: RecordDraft) -> OpenCall | None:
    """The call that a record lets through; None when it is another record."""
    if draft.type != _DECIDED:
        return None
    try:
        data = json.loads(draft.data)
    except ValueError:
        return None
    if data.get("effect") != "allow":
        return None
    return OpenCall(draft.subject, int(data.get("leg", 0)), draft.tenant, draft.data)
