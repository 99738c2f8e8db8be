"""Messages that a stream must acknowledge, many under way at a time."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

import nats.errors

from fulcrum_adapters.jetstream.connection import Client, Connection, Msg, Refused
from fulcrum_mcp.errors import Unavailable

__all__ = ["MESSAGE_OVERHEAD", "Letter", "Post"]

MESSAGE_OVERHEAD: Final = 4096
"""Bytes of one message that headers may take; the payload limit counts them."""
_BREATH: Final = 8
"""Messages between two turns of the loop, which serves calls meanwhile."""
_NO_STREAM: Final = 503


class Letter(NamedTuple):
    """One message for a stream; `id` is what its duplicate would be known by."""

    subject: str
    body: bytes
    stream: str
    id: str | None = None
    headers: Mapping[str, str] = {}


class Post:
    """Belongs to one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._numbers = count(1)
        self._inbox = ""
        connection.join(self._attach, self._lost)

    async def _attach(self, client: Client) -> None:
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._answered)
        self._inbox = inbox

    def _lost(self) -> None:
        self._inbox = ""
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(self._connection.unavailable("the connection was lost", doubtful=True))

    async def _answered(self, message: Msg) -> None:
        future = self._pending.pop(message.subject.rpartition(".")[2], None)
        if future is None or future.done():
            return
        if message.headers and message.headers.get("Status") == str(_NO_STREAM):
            future.set_exception(
                Refused(str(self._connection.unavailable("no stream takes that; it is made anew")), _NO_STREAM)
            )
            return
        try:
            told = json.loads(message.data)
            fault = told.get("error")
        except (ValueError, AttributeError, RecursionError):
            future.set_exception(self._connection.unavailable("an acknowledgement that is none", doubtful=True))
            return
        if fault:
            what = f"NATS at {self._connection.config.place} refuses a record: {fault.get('description')}"
            future.set_exception(Refused(what, int(fault.get("code", 0)), int(fault.get("err_code", 0))))
        else:
            future.set_result(None)

    async def send(self, letters: Sequence[Letter], seconds: float | None = None) -> None:
        """Publish all, pipelined, and wait until each is acknowledged; bounded.

        Raises:
            Refused: none of them was taken, and that is certain.
            Unavailable: doubtful when any of them may have arrived.
        """
        client = self._connection.client
        if not self._inbox:
            raise self._connection.unavailable("the connection is not ready yet")
        loop = asyncio.get_running_loop()
        until = loop.time() + (seconds or self._connection.config.timeout)
        waiting: dict[str, asyncio.Future[None]] = {}
        try:
            for letter in letters:
                number = str(next(self._numbers))
                waiting[number] = self._pending[number] = loop.create_future()
                await self._publish(client, letter, f"{self._inbox}.{number}")
                if len(waiting) % _BREATH == 0:
                    await asyncio.sleep(0)
            if waiting:
                await asyncio.wait(waiting.values(), timeout=max(0.0, until - loop.time()))
        except (nats.errors.Error, OSError) as exc:
            raise self._connection.unavailable(str(exc) or type(exc).__name__, doubtful=len(waiting) > 1) from exc
        finally:
            for number, future in waiting.items():
                self._pending.pop(number, None)
                future.cancel()
        late = self._connection.unavailable("no acknowledgement in time", doubtful=True)
        _judge([late if future.cancelled() else future.exception() for future in waiting.values()])

    async def _publish(self, client: Client, letter: Letter, reply: str) -> None:
        headers = {"Nats-Expected-Stream": letter.stream, **letter.headers}
        if letter.id is not None:
            headers["Nats-Msg-Id"] = letter.id
        await client.publish(letter.subject, letter.body, reply=reply, headers=headers)


def _judge(faults: Sequence[BaseException | None]) -> None:
    """Nothing, when all went well; else the worst of it."""
    bad = [fault for fault in faults if fault is not None]
    if not bad:
        return
    if len(bad) == len(faults) and all(isinstance(fault, Refused) for fault in bad):
        raise bad[0]
    first = next((fault for fault in bad if not isinstance(fault, Refused)), bad[0])
    raise Unavailable(str(first), doubtful=True) from first
