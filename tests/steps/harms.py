"""What is done to Valkey, or to a message, at the one step that was chosen; and how it is healed."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import redis
from servers.steps import Message, Passing
from servers.valkey import ValkeyServer
from steps.words import kind_of

__all__ = ["HARMS", "PLACES", "Harm", "Place", "Step", "Trigger"]

Place = Literal["before", "after"]
PLACES: Final[tuple[Place, ...]] = ("before", "after")
LATE: Final = 5.0
SLOW: Final = 1.2
"""Seconds for which everything is so late, where everything is."""


@dataclass(frozen=True)
class Step:
    """One message of a course: the n-th of its kind."""

    kind: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.kind} {self.ordinal}"


@dataclass(frozen=True)
class Harm:
    """`strike` is called on the proxy's loop and says how the message goes on; it is healed `seconds` later."""

    strike: Callable[[ValkeyServer, Place], Awaitable[Passing]]
    seconds: float = 0.0


def tell(server: ValkeyServer, *words: str) -> None:
    """A command that no proxy sees."""
    client = redis.Redis.from_url(server.url, socket_timeout=2.0)
    try:
        client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no types here
    finally:
        client.close()


async def _killed(server: ValkeyServer, place: Place) -> Passing:
    server.kill()
    return "whole" if place == "before" else "cut"


async def _paused(server: ValkeyServer, place: Place) -> Passing:
    server.pause()
    while place == "after" and server.paused:  # noqa: ASYNC110 - its answer waits with it
        await asyncio.sleep(0.01)
    return "whole"


async def _late(_: ValkeyServer, __: Place) -> Passing:
    await asyncio.sleep(LATE)
    return "whole"


async def _read_only(server: ValkeyServer, _: Place) -> Passing:
    tell(server, "REPLICAOF", "127.0.0.1", "1")
    return "whole"


async def _flushed(server: ValkeyServer, _: Place) -> Passing:
    tell(server, "FLUSHALL")
    return "whole"


async def _restarted_empty(server: ValkeyServer, _: Place) -> Passing:
    server.restart(empty=True)
    return "whole"


async def _without_scripts(server: ValkeyServer, _: Place) -> Passing:
    tell(server, "SCRIPT", "FLUSH")
    return "whole"


async def _reset(_: ValkeyServer, __: Place) -> Passing:
    return "cut"


async def _half(_: ValkeyServer, __: Place) -> Passing:
    return "half"


HARMS: Final[Mapping[str, Harm]] = {
    "killed": Harm(_killed, 0.8),
    "paused": Harm(_paused, 1.3),
    "late": Harm(_late, LATE),
    "slow": Harm(_late, SLOW),
    "read-only": Harm(_read_only, 0.8),
    "flushed": Harm(_flushed),
    "restarted empty": Harm(_restarted_empty),
    "without scripts": Harm(_without_scripts),
    "reset": Harm(_reset),
    "half": Harm(_half),
}
"""`late`: this message alone, others overtake it. `slow`: this one and all that follow for a while."""


class Trigger:
    """`Steps` of a proxy: harmless until the chosen step comes, and after it."""

    def __init__(self, server: ValkeyServer, step: Step | None = None, place: Place = "before", harm: str = "") -> None:
        self._server = server
        self._step = step
        self._place: Place = place
        self._harm = harm
        self._met = Counter[str]()
        self._chosen: Message | None = None
        self._steps: dict[int, Step] = {}
        self.struck_at: float | None = None
        self.done = threading.Event()
        """It was struck and is healed."""

    @property
    def steps(self) -> list[Step]:
        """All that were met, in order."""
        return list(self._steps.values())

    async def before(self, message: Message) -> Passing:
        """See `Steps`."""
        kind = kind_of(message.words)
        self._met[kind] += 1
        step = self._steps[message.number] = Step(kind, self._met[kind])
        if step == self._step:
            self._chosen = message
        return await self._strike(message, "before")

    async def after(self, message: Message) -> Passing:
        """See `Steps`."""
        return await self._strike(message, "after")

    async def _strike(self, message: Message, place: Place) -> Passing:
        if place != self._place or self._harm == "":
            return "whole"
        harm = HARMS[self._harm]
        if message is self._chosen and self.struck_at is None:
            self.struck_at = time.monotonic()
            asyncio.get_running_loop().call_later(harm.seconds, self._heal)
            return await harm.strike(self._server, place)
        if self._harm == "slow" and self.struck_at is not None and time.monotonic() < self.struck_at + harm.seconds:
            return await harm.strike(self._server, place)
        return "whole"

    def _heal(self) -> None:
        self._server.resume()
        self._server.start()
        if self._harm == "read-only":
            tell(self._server, "REPLICAOF", "NO", "ONE")
        self.done.set()
