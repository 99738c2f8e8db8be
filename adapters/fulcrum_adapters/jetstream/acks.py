"""Messages that a stream must acknowledge, many under way at a time."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from fulcrum_adapters.jetstream.client import Client, published
from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_mcp.errors import Unavailable

__all__ = ["AT_ONCE", "MESSAGE_OVERHEAD", "Letter", "Post", "Told"]

MESSAGE_OVERHEAD: Final = 4096
"""Bytes of one message that headers may take; the payload limit counts them."""
AT_ONCE: Final = 8
"""Messages between two turns of the loop, which serves calls meanwhile."""
_NO_STREAM: Final = 503
_LOST: Final = "the connection was lost"

Told: TypeAlias = Callable[[Unavailable | None], None]
"""Hears once, on the loop, what became of messages: None, or what `Post.send` raises."""


class Letter(NamedTuple):
    """One message for a stream; `id` is what its duplicate would be known by."""

    subject: str
    body: bytes
    stream: str
    id: str | None = None
    headers: Mapping[str, str] = {}


class _Round:
    """Messages that are sent together: what the server says to each, and who is told when it has said all."""

    __slots__ = ("_faults", "_left", "_size", "_told", "numbers", "timer")

    def __init__(self, size: int, told: Told) -> None:
        self._size = self._left = size
        self._told = told
        self._faults: list[Unavailable] = []
        self.numbers: list[str] = []
        self.timer: asyncio.TimerHandle | None = None

    def take(self, fault: Unavailable | None, *, rest: bool = False) -> None:
        """What became of one of them; `rest`: of all that nothing is known of."""
        if self._left <= 0:
            return
        self._left = 0 if rest else self._left - 1
        if fault is not None:
            self._faults.append(fault)
        if self._left == 0:
            if self.timer is not None:
                self.timer.cancel()
            self._told(self._verdict())

    def _verdict(self) -> Unavailable | None:
        """Nothing, when all went well; else the worst of it."""
        bad = self._faults
        if not bad:
            return None
        first = next((fault for fault in bad if not isinstance(fault, Refused)), None)
        if first is None and len(bad) == self._size:
            return bad[0]
        fault = Unavailable(str(first or bad[0]), doubtful=True)
        fault.__cause__ = first or bad[0]
        return fault


class Post:
    """Belongs to one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pending: dict[str, _Round] = {}
        """By the number of each message that is under way."""
        self._number = 0
        self._inbox = ""
        connection.join(self._attach, self._lost)

    async def _attach(self, client: Client) -> None:
        inbox = client.new_inbox()
        await client.hear(f"{inbox}.*", self._answered)
        self._inbox = inbox

    def _lost(self) -> None:
        self._inbox = ""
        pending, self._pending = self._pending, {}
        for under_way in pending.values():
            under_way.take(self._connection.unavailable(_LOST, doubtful=True), rest=True)

    def _answered(self, subject: str, headers: Mapping[str, str] | None, body: bytes) -> None:
        under_way = self._pending.pop(subject.rpartition(".")[2], None)
        if under_way is not None:
            under_way.take(self._fault(headers, body))

    def _fault(self, headers: Mapping[str, str] | None, body: bytes) -> Unavailable | None:
        """What an acknowledgement says; None: the message is in the stream."""
        if headers and headers.get("Status") == str(_NO_STREAM):
            return Refused(str(self._connection.unavailable("no stream takes that; it is made anew")), _NO_STREAM)
        try:
            fault = json.loads(body).get("error")
            if not fault:
                return None
            what = f"NATS at {self._connection.config.place} refuses a record: {fault.get('description')}"
            return Refused(what, int(fault.get("code", 0)), int(fault.get("err_code", 0)))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return self._connection.unavailable("an acknowledgement that is none", doubtful=True)

    def begin(self, letters: Sequence[Letter], told: Told, seconds: float | None = None) -> None:
        """What `send` does with a few small messages, at once; `told` hears on the loop what it would have raised."""
        if not letters:
            told(None)
            return
        try:
            client, inbox = self._ready()
        except Unavailable as fault:
            told(fault)
            return
        self._say(client, inbox, letters, self._round(len(letters), told, seconds))

    async def send(self, letters: Sequence[Letter], seconds: float | None = None) -> None:
        """Publish all, pipelined, and wait until each is acknowledged; bounded.

        Raises:
            Refused: none of them was taken, and that is certain.
            Unavailable: doubtful when any of them may have arrived.
        """
        client, inbox = self._ready()
        if not letters:
            return
        done: asyncio.Future[Unavailable | None] = asyncio.get_running_loop().create_future()
        under_way = self._round(len(letters), lambda fault: None if done.done() else done.set_result(fault), seconds)
        try:
            for start in range(0, len(letters), AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                    if done.done():
                        break
                self._say(client, inbox, letters[start : start + AT_ONCE], under_way)
            fault = await done
        finally:
            self._give_up(under_way, self._connection.unavailable("given up", doubtful=True))
        if fault is not None:
            raise fault

    def _ready(self) -> tuple[Client, str]:
        client = self._connection.client
        if not self._inbox:
            raise self._connection.unavailable("the connection is not ready yet")
        return client, self._inbox

    def _round(self, size: int, told: Told, seconds: float | None) -> _Round:
        under_way = _Round(size, told)
        late = self._connection.unavailable("no acknowledgement in time", doubtful=True)
        wait = seconds or self._connection.config.timeout
        under_way.timer = asyncio.get_running_loop().call_later(wait, self._give_up, under_way, late)
        return under_way

    def _say(self, client: Client, inbox: str, letters: Sequence[Letter], under_way: _Round) -> None:
        if inbox != self._inbox:
            under_way.take(self._connection.unavailable(_LOST, doubtful=True), rest=True)
            return
        commands: list[bytes] = []
        for letter in letters:
            self._number += 1
            number = str(self._number)
            under_way.numbers.append(number)
            self._pending[number] = under_way
            commands.append(_command(letter, f"{inbox}.{number}"))
        try:
            client.say(commands)
        except (OSError, RuntimeError) as exc:
            self._give_up(under_way, self._connection.unavailable(str(exc) or _LOST, doubtful=True))

    def _give_up(self, under_way: _Round, why: Unavailable) -> None:
        for number in under_way.numbers:
            self._pending.pop(number, None)
        under_way.take(why, rest=True)


def _command(letter: Letter, reply: str) -> bytes:
    headers = {"Nats-Expected-Stream": letter.stream, **letter.headers}
    if letter.id is not None:
        headers["Nats-Msg-Id"] = letter.id
    return published(letter.subject, letter.body, reply, headers)
