"""Stores what comes over the stream: any number of these at once, in any order, each record once.

A delivery is acknowledged only after what it holds is committed. Nothing that cannot be read or stored is dropped: it
is kept whole as a dead letter. While the archive does not answer, what was fetched is held and nothing more is fetched.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports import Archive, AuditFeed, DeadLetter, Delivery
from fulcrum_mcp.processor.parcels import Entry, unpack
from fulcrum_mcp.processor.patience import Patience, waited

__all__ = ["Storer", "StorerConfig"]

_log = structlog.get_logger("fulcrum.processor")

_TOLD = 10
"""Dead letters of a minute that the log names one by one: whoever may publish can send any number."""
_MINUTE = 60.0
_RECENT = 60.0
"""Seconds for which a success shows that it is worth while to ask for records one by one."""
_ENOUGH = 8
"""Records refused one by one, and none taken: then it is not the records."""
_REMEMBERED = 65_536
"""Records of which it is known since when they are refused."""


@dataclass(frozen=True, slots=True)
class StorerConfig:
    """Seconds, except where it says otherwise."""

    deliveries: int = 512
    """At most in one batch."""
    batch_bytes: int = 2 << 20
    """About what one batch may hold; two more than `at_once` may be in memory."""
    at_once: int = 2
    """Batches that are stored at the same time: while the archive works on one, the next is made ready for it."""
    wait: float = 1.0
    """For something to come."""
    linger: float = 0.1
    """After a fetch that took all there was: what comes meanwhile is stored at once, which costs a fraction."""
    aside: float = 10.0
    """Until what the archive refuses is tried again, while nothing shows that it takes other records."""
    longest: float = 10.0
    """Between two tries when the archive or the stream does not answer."""


@dataclass(slots=True)
class _Batch:
    """What was fetched at once, taken apart."""

    deliveries: Sequence[Delivery]
    entries: list[list[Entry]] = field(default_factory=list)
    """Of each delivery."""
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def oldest(self) -> int | None:
        return min((entry.record.time for entries in self.entries for entry in entries), default=None)


class Storer:
    """`run` it until told to stop. `tenant_of` says whose parcels come under a subject, None: nobody's."""

    def __init__(
        self,
        feed: AuditFeed,
        archive: Archive,
        tenant_of: Callable[[str], str | None],
        config: StorerConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._feed = feed
        self._archive = archive
        self._tenant_of = tenant_of
        self._config = config or StorerConfig()
        self._clock = clock
        self._most = min(8, self._config.deliveries)
        self._succeeded = -_RECENT
        """When the last store was begun that the archive has taken."""
        self._refused: dict[str, float] = {}
        """Id -> since when the archive refuses the record."""
        self._in_hand: list[_Batch] = []
        self._counting = threading.Lock()
        self._named = 0
        self._named_since = -_MINUTE
        self.stored = 0
        """Records that were committed, those that were there already included."""
        self.letters = 0
        self.newest = 0
        """Time of the youngest record that was stored, us; 0: none."""
        self.feed_fault: str | None = None
        self.archive_fault: str | None = None

    def oldest(self) -> int | None:
        """Time (us) of the oldest record in hand, None when there is none."""
        times = [batch.oldest for batch in self._in_hand]
        return min((found for found in times if found is not None), default=None)

    async def run(self, stopping: asyncio.Event) -> None:
        """Fetch and store; ends when `stopping` is set, what was fetched is stored or given back."""
        queue: asyncio.Queue[_Batch | None] = asyncio.Queue(maxsize=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fetch_all(queue, stopping))
            for _ in range(self._config.at_once):
                tasks.create_task(self._keep_all(queue, stopping))

    async def _keep_all(self, queue: asyncio.Queue[_Batch | None], stopping: asyncio.Event) -> None:
        while (batch := await queue.get()) is not None:
            await self._keep(batch, stopping)
            self._in_hand.remove(batch)

    async def _fetch_all(self, queue: asyncio.Queue[_Batch | None], stopping: asyncio.Event) -> None:
        patience = Patience(self._config.longest)
        while not stopping.is_set():
            most = self._most
            try:
                deliveries = await self._feed.fetch(most, self._config.wait)
                self.feed_fault = None
                patience.reset()
            except Exception as exc:  # noqa: BLE001 - whatever it is, what is in the stream comes again
                self.feed_fault = patience.told(exc, "audit.fetch.waits", self.feed_fault)
                await waited(stopping, patience.next())
                continue
            if deliveries:
                self._adapt(deliveries)
                batch = _Batch(deliveries)
                self._in_hand.append(batch)
                await asyncio.to_thread(self._unpack, batch)  # while the one before it is stored
                await queue.put(batch)
                if len(deliveries) < most:
                    await waited(stopping, self._config.linger)
        for _ in range(self._config.at_once):
            await queue.put(None)

    def _adapt(self, deliveries: Sequence[Delivery]) -> None:
        """So many the next time that about `batch_bytes` come."""
        largest = max(len(delivery.body) for delivery in deliveries)
        fits = self._config.batch_bytes // max(largest, 1)
        self._most = max(1, min(self._config.deliveries, self._most * 2, fits))

    async def _keep(self, batch: _Batch, stopping: asyncio.Event) -> None:
        """Store a batch, however long that takes; or give it back, when it is time to stop."""
        patience = Patience(self._config.longest)
        while True:
            try:
                done, refused = await asyncio.to_thread(self._store, batch)
            except Exception as exc:  # noqa: BLE001 - whatever it is, nothing is acknowledged and the next try is anew
                self.archive_fault = patience.told(exc, "audit.store.waits", self.archive_fault)
                if await waited(stopping, patience.next()):
                    await _all(delivery.again(0) for delivery in batch.deliveries)
                    return
                continue
            if not refused:
                self.archive_fault = None
            await _all(delivery.ack() for delivery in done)
            await _all(delivery.again(self._config.aside) for delivery in refused)
            return

    def _unpack(self, batch: _Batch) -> None:
        now = self._clock() // 1000
        for delivery in batch.deliveries:
            subject, body = delivery.subject, delivery.body
            entries: list[Entry] = []
            try:
                if delivery.fault is not None:
                    letters = [DeadLetter(subject, delivery.fault, body)]
                else:
                    entries, letters = unpack(subject, self._tenant_of(subject), body, now)
            except Exception as exc:  # noqa: BLE001 - a parcel that nobody can read must not come again for ever
                _log.exception("audit.parcel.unreadable", subject=subject)
                letters = [DeadLetter(subject, f"it cannot be read: {type(exc).__name__}", body)]
            batch.entries.append(entries)
            batch.letters += letters

    def _store(self, batch: _Batch) -> tuple[list[Delivery], list[Delivery]]:
        """On a thread: what may be acknowledged, and what the archive refuses. Raises `Unavailable`."""
        if batch.letters:
            self._archive.bury(batch.letters)
            self._tell(batch.letters)
            batch.letters = []
        refused = self._put([entry for entries in batch.entries for entry in entries])
        # Is it these records, or is it the archive? Only what it takes after it has refused one shows that.
        odd = [(entry, why) for entry, why in refused if self._since(entry) < self._succeeded]
        back = {id(entry) for entry, _ in refused} - {id(entry) for entry, _ in odd}
        if odd:
            letters = [DeadLetter(entry.record.chain, why, entry.record.line) for entry, why in odd]
            self._archive.bury(letters)
            self._tell(letters)
        if not back:
            return list(batch.deliveries), []
        _log.error("audit.store.refuses", reason=refused[0][1], records=len(back))
        self.archive_fault = refused[0][1]
        done: list[Delivery] = []
        bad: list[Delivery] = []
        for delivery, entries in zip(batch.deliveries, batch.entries, strict=True):
            (bad if any(id(entry) in back for entry in entries) else done).append(delivery)
        return done, bad

    def _since(self, entry: Entry) -> float:
        """When the archive first refused it; now, if it did so just now."""
        if len(self._refused) >= _REMEMBERED:
            self._refused.clear()
        return self._refused.setdefault(entry.record.id, time.monotonic())

    def _put(self, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """Store them; those that the archive refuses for what is in them, and why. Raises `Unavailable`."""
        refused: list[tuple[Entry, str]] = []
        left = [entries] if entries else []
        while left:
            some = left.pop()
            try:
                self._put_all(some)
            except Invalid as exc:
                why = f"the archive refuses it: {exc}"
                if len(some) == 1:
                    refused.append((some[0], why))
                    self._since(some[0])
                elif len(refused) >= _ENOUGH and time.monotonic() - self._succeeded > _RECENT:
                    refused += [(entry, why) for entry in some]
                else:
                    half = len(some) // 2
                    left += [some[half:], some[:half]]
        return refused

    def _put_all(self, entries: list[Entry]) -> None:
        records = [entry.record for entry in entries]
        began = time.monotonic()
        conflicts = self._archive.store(records, [text for entry in entries for text in entry.inputs])
        self._succeeded = max(began, self._succeeded)
        if self._refused:
            for record in records:
                self._refused.pop(record.id, None)
        self._tell(conflicts)
        with self._counting:
            self.stored += len(entries) - len(conflicts)
            self.newest = max(self.newest, *(record.time for record in records))

    def _tell(self, letters: Sequence[DeadLetter]) -> None:
        now = time.monotonic()
        with self._counting:
            self.letters += len(letters)
            if now - self._named_since >= _MINUTE:
                self._named, self._named_since = 0, now
            before, after = self._named, self._named + len(letters)
            self._named = after
        for letter in letters[: max(_TOLD - before, 0)]:
            _log.error("audit.dead_letter", source=letter.source, what=letter.what, bytes=len(letter.body))
        if before <= _TOLD < after:
            _log.error("audit.dead_letters", reason="there are more; they are kept, and counted, and not named here")


async def _all(answers: Iterable[Coroutine[None, None, None]]) -> None:
    """What is lost here comes again, and is then known."""
    with suppress(Exception):
        await asyncio.gather(*answers, return_exceptions=True)
