"""Following changes: what is changed anywhere becomes this process's snapshot, and what is changed here is told.

The folder of policies and the store are looked at again and again; with a feed, news come at once and the store is
asked seldom. Whatever fails, the last snapshot goes on.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from fulcrum_mcp.composition.snapshots import Snapshots
from fulcrum_mcp.errors import FulcrumError
from fulcrum_mcp.gateway.snapshot import SnapshotHolder
from fulcrum_mcp.ports import ConfigFeed

__all__ = ["Follower"]

_log = structlog.get_logger("fulcrum.gateway")

_POLL: Final = 0.25
"""Seconds between two looks at the folder of policies, and at the store when no feed brings news."""
_STORE_POLL: Final = 5.0
"""Seconds between two looks at the store when news come by a feed."""
_BEHIND: Final = 0.1
"""Seconds until the store is asked again when it does not show yet what was announced."""
_MOST_BEHIND: Final = 50
_PATIENCE: Final = 1.0
"""Seconds that a change waits to be in force in this process before it is answered."""
_AGAIN: Final = 1.0
"""Seconds until news that could not be told are told again."""


class Follower:
    """Keeps one process's snapshot current. `start` and `close` on its event loop.

    `feed_fault` says why no news come at the moment, or None.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        holder: SnapshotHolder,
        *,
        feed: ConfigFeed | None = None,
        feed_fault: Callable[[], str | None] | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._holder = holder
        self._feed = feed
        self._feed_fault = feed_fault or self._silent
        self._store_poll = _POLL if feed is None else _STORE_POLL
        self._loop = asyncio.get_running_loop()
        self._one = asyncio.Lock()
        self._wake = asyncio.Event()
        self._untold = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._revision = snapshots.revision
        self._read_at = time.monotonic()
        self._heard: int | None = None
        self._forced = False
        self._looking: set[asyncio.Task[None]] = set()
        self._behind = 0
        self.fault: str | None = None
        """Why the store was not read at the last attempt; None when it was."""
        self.on_revision: list[Callable[[], None]] = []
        """Called on the event loop after each change of what is stored, keys included."""

    def start(self) -> None:
        """Follow from now on."""
        self._tasks = [self._loop.create_task(self._follow()), self._loop.create_task(self._watch_folder())]
        if self._feed is not None:
            self._tasks += [
                self._loop.create_task(self._hear(self._feed)),
                self._loop.create_task(self._tell(self._feed)),
            ]
        self._notice()

    def changed(self) -> None:
        """Something was changed by this process: put it in force here and tell the others.

        From any thread but the event loop's; waits until it holds here, for a moment at most.
        """
        done = threading.Event()

        def begin() -> None:
            task = self._loop.create_task(self._changed_here())
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
            task.add_done_callback(lambda _: done.set())

        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is judged here any more
            self._loop.call_soon_threadsafe(begin)
            done.wait(_PATIENCE)

    async def _changed_here(self) -> None:
        await self._read()
        self._forced = True  # also when its number is not above what was heard: the store may be a restored one
        self._untold.set()
        await self._snapshots.settled()

    @property
    def age(self) -> float:
        """Seconds since the store was last read, or known to be unchanged."""
        return time.monotonic() - self._read_at

    @property
    def state(self) -> str:
        """What has to be known about it, for health; empty when all is well."""
        parts: list[str] = []
        if self.fault is not None:
            parts.append(f"the store is not read; going on with the configuration of {self.age:.0f} s ago")
        if self._feed is not None and (fault := self._feed_fault()) is not None:
            parts.append(f"no news of changes ({fault}); the store is asked every {self._store_poll:.0f} s")
        return "; ".join(parts)

    def _silent(self) -> str | None:
        return "none has come yet" if self._heard is None else None

    async def look(self) -> None:
        """Look into the store now, and wait until what is there holds; never raises for what fails."""
        await self._read()
        await self._snapshots.settled()

    async def _read(self) -> None:
        """Look into the store now. New policies are still being compiled then: kill switches do not wait for them."""
        async with self._one:
            try:
                await self._snapshots.read_store(self._holder)
            except Exception as fault:  # noqa: BLE001 - following must not end while the gateway runs
                said = str(fault) or type(fault).__name__
                if self.fault != said:
                    known = isinstance(fault, FulcrumError | OSError)
                    _log.warning("configuration not read", reason=said, exc_info=not known)
                self.fault = said
            else:
                if self.fault is not None:
                    _log.info("configuration read again", revision=self._snapshots.revision)
                self._read_at, self.fault = time.monotonic(), None
            self._notice()

    async def _watch_folder(self) -> None:
        """Beside the store: trying new policies may take seconds, and a kill switch must not wait for it."""
        while True:
            await asyncio.sleep(_POLL)
            try:
                await self._snapshots.refresh_folder(self._holder)
            except Exception:  # noqa: BLE001 - following must not end while the gateway runs
                _log.exception("folder of policies not read")

    def _notice(self) -> None:
        """Tell whoever has to know that what is stored has changed."""
        now = self._snapshots.revision
        if now != self._revision:
            self._revision, self._behind = now, 0
            for told in self.on_revision:
                try:
                    told()
                except Exception:  # noqa: BLE001 - following must not end while the gateway runs
                    _log.exception("a change of what is stored was not taken in")
        if self._heard is None or now > self._heard:
            self._untold.set()

    async def _follow(self) -> None:
        pause = self._store_poll
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self._read()
            pause = self._pause()

    def _pause(self) -> float:
        """Seconds until the store is asked again: soon while it does not show what was announced."""
        behind = self._heard is not None and self._heard > self._revision
        self._behind = self._behind + 1 if behind else 0
        return _BEHIND if 0 < self._behind < _MOST_BEHIND else self._store_poll

    async def _hear(self, feed: ConfigFeed) -> None:
        while True:
            try:
                async for revision in feed.watch():
                    self._heard, self._behind = revision, 0
                    if revision != self._revision:
                        self._wake.set()
            except Exception:  # noqa: BLE001 - whatever a feed does, the store is still asked
                _log.exception("no news of changes")
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def _tell(self, feed: ConfigFeed) -> None:
        """Announce what is newer than anything heard, until it was."""
        while True:
            await self._untold.wait()
            self._untold.clear()
            revision = self._snapshots.revision
            if self._heard is not None and revision <= self._heard and not self._forced:
                continue
            self._forced = False
            try:
                await feed.announce(revision, self._holder.current.revision)
            except Exception as fault:  # noqa: BLE001 - telling must not end while the gateway runs
                say = _log.debug if isinstance(fault, FulcrumError) else _log.exception
                say("change not announced yet", reason=str(fault))
                self._forced = True
                self._untold.set()
                await asyncio.sleep(_AGAIN)
            else:
                self._heard = revision

    async def close(self) -> None:
        """Stop following. Idempotent; the feed stays its owner's."""
        tasks = [*self._tasks, *self._looking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._snapshots.close()
        self._tasks = []
