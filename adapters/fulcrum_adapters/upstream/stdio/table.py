"""All processes of one upstream: who may have how many, which are idle, and when a crashed one may start again."""

import asyncio
import secrets
import time
from collections.abc import Callable, Hashable

from fulcrum_adapters.upstream.stdio.breaker import Breaker
from fulcrum_adapters.upstream.stdio.config import StdioConfig
from fulcrum_adapters.upstream.stdio.guard import Guard
from fulcrum_adapters.upstream.stdio.modern import ModernProcess
from fulcrum_adapters.upstream.stdio.multiplexer import Multiplexer
from fulcrum_adapters.upstream.stdio.process import ServerProcess
from fulcrum_adapters.upstream.stdio.session import Session
from fulcrum_mcp.errors import UpstreamFailed

__all__ = ["ProcessTable"]

_EVICTABLE = 60.0
_SWEEP = 15.0
_BREAKERS = 1024


class ProcessTable:
    """Starts, finds and ends processes. Never more of them than configured, also while some are still starting."""

    def __init__(self, name: str, config: StdioConfig, log: Callable[[str, str], None] | None) -> None:
        self.name = name
        self.config = config
        self.closed = False
        self.sessions: dict[str, Session] = {}
        self.modern: ModernProcess | None = None
        self._log = log
        self._guard = Guard()
        self._living: dict[ServerProcess, Hashable] = {}
        self._breakers: dict[Hashable, Breaker] = {}
        self._starting: asyncio.Task[ModernProcess] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def pids(self) -> list[int]:
        """Of the servers that live."""
        return [process.pid for process in self._living if process.pid]

    async def shared(self) -> ModernProcess:
        """The modern process, started when there is none. Raises `UpstreamFailed`, nothing sent."""
        if self.modern is not None and not self.modern.process.ended:
            return self.modern
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start_shared())
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    def _started(self, task: "asyncio.Task[ModernProcess]") -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()

    async def _start_shared(self) -> ModernProcess:
        modern = ModernProcess(self.config.stream_limit, self.config.cancel_grace)
        await self._launch(modern, None)
        self.modern = modern
        return modern

    async def open(self, owner: Hashable) -> Session:
        """A new session with a process of its own. Raises `UpstreamFailed`, nothing sent."""
        session = Session(secrets.token_urlsafe(32), owner, self.config)
        await self._launch(session, owner)
        self.sessions[session.id] = session
        return session

    def find(self, session_id: str, owner: Hashable) -> Session | None:
        """A living session of this owner; another's does not exist."""
        session = self.sessions.get(session_id)
        return session if session is not None and session.owner == owner and not session.process.ended else None

    async def end(self, session: Session) -> None:
        """End a session and its process."""
        self.sessions.pop(session.id, None)
        await session.process.stop()

    def end_soon(self, session: Session) -> None:
        """The same, without waiting."""
        self.sessions.pop(session.id, None)
        session.process.stop_soon()

    async def _launch(self, front: Multiplexer, owner: Hashable) -> None:
        now = time.monotonic()
        breaker = self._breakers.get(owner)
        if breaker is not None and (wait := breaker.waits(now)) > 0:
            raise UpstreamFailed(
                f"{breaker.reason}; it failed {breaker.failures} times in a row, the next start is in {wait:.1f} s",
                sent=False,
            )
        await self._guard.ready()
        self._admit(owner, now)
        log = self._log
        process = ServerProcess(
            self.name,
            self.config,
            front.receive,
            lambda failure: self._ended(front, owner, now, failure),
            None if log is None else lambda line: log(self.name, line),
        )
        front.process = process
        self._living[process] = owner
        try:
            await process.start()
        except UpstreamFailed as exc:
            del self._living[process]
            self._breaker(owner).failed(time.monotonic(), 0.0, str(exc))
            raise
        self._guard.add(process.pid)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        if self.closed:
            await process.stop()
            raise self._refused("it is being stopped")

    def _breaker(self, owner: Hashable) -> Breaker:
        if len(self._breakers) >= _BREAKERS:
            self._breakers.pop(next(iter(self._breakers)))
        return self._breakers.setdefault(owner, Breaker(self.config.max_pause, self.config.healthy_after))

    def _admit(self, owner: Hashable, now: float) -> None:
        if self.closed:
            raise self._refused("it is being stopped")
        limit = self.config.max_processes_per_principal
        if owner is not None and not self._room(owner, limit):
            self._evict(now, owner, 0.0)
            if not self._room(owner, limit):
                raise self._refused(f"this principal has its limit of {limit}; end a session first")
        limit = self.config.max_processes
        if not self._room(None, limit):
            self._evict(now, None, _EVICTABLE)
            if not self._room(None, limit):
                raise self._refused(f"the limit of {limit} is reached; try again later")

    def _room(self, owner: Hashable, limit: int) -> bool:
        """Whether one more may start; those being ended do not count, unless they pile up."""
        found = [process for process, holder in self._living.items() if owner is None or holder == owner]
        ending = sum(process.stopping for process in found)
        return len(found) - ending < limit and len(found) < 2 * limit

    def _refused(self, why: str) -> UpstreamFailed:
        return UpstreamFailed(f'upstream "{self.name}": no new process: {why}', sent=False)

    def _evict(self, now: float, owner: Hashable, idle: float) -> None:
        """End the session that was not used for longest, if there is one to which nobody listens."""
        found = [
            session
            for session in self.sessions.values()
            if (owner is None or session.owner == owner) and not session.busy and now - session.used >= idle
        ]
        if found:
            self.end_soon(min(found, key=lambda session: (bool(session.exchanges), session.used)))

    def _ended(self, front: Multiplexer, owner: Hashable, since: float, failure: UpstreamFailed) -> None:
        process = front.process
        if isinstance(front, Session):
            self.sessions.pop(front.id, None)
        elif self.modern is front:
            self.modern = None
        if not process.wanted:
            now = time.monotonic()
            self._breaker(owner).failed(now, now - since, str(failure))
        front.ended(failure)
        process.stop_soon().add_done_callback(lambda _: self._forget(process))

    def _forget(self, process: ServerProcess) -> None:
        self._living.pop(process, None)
        self._guard.remove(process.pid)

    async def _sweep(self) -> None:
        """End what is idle."""
        timeout = self.config.idle_timeout
        while True:
            await asyncio.sleep(min(timeout / 4, _SWEEP))
            now = time.monotonic()
            for session in tuple(self.sessions.values()):
                if not session.busy and now - session.used > timeout:
                    self.end_soon(session)
            modern = self.modern
            if modern is not None and not modern.exchanges and now - modern.used > timeout:
                self.modern = None
                modern.process.stop_soon()

    async def close(self) -> None:
        """End everything. Idempotent."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        self.sessions.clear()
        await asyncio.gather(*(process.stop() for process in tuple(self._living)))
        await self._guard.close()
