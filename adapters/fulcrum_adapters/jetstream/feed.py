"""Parcels out of JetStream, for several processors at once: each message comes again until somebody has stored it."""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, cast

import nats.errors
import structlog

from fulcrum_adapters.jetstream.acks import Letter, Post
from fulcrum_adapters.jetstream.connection import Client, Connection, Msg, Refused
from fulcrum_adapters.jetstream.pieces import HEADER, LOST, collect, discard
from fulcrum_adapters.jetstream.seal import NOT_OURS, SEAL, Seal
from fulcrum_adapters.jetstream.streams import CONSUMER, ensure_consumer, ensure_streams
from fulcrum_adapters.jetstream.subjects import stored_subject
from fulcrum_mcp.errors import FulcrumError, Unavailable
from fulcrum_mcp.ports import Delivery, StreamLag

__all__ = ["JetStreamAuditFeed"]

_log = structlog.get_logger("fulcrum.nats")

_ACK_WAIT: Final = 10.0
"""Seconds after which a processor that has said nothing is taken for dead; a rebuild of the ledger may wait so long."""
_MOST_UNACKNOWLEDGED: Final = 4096
_MOST_COLLECTED: Final = 64 << 20
"""Bytes of parcels in pieces after which the rest of them waits for the next question."""
_NOTHING: Final = frozenset({"404", "408"})


class _Delivery:
    """A `Delivery`."""

    __slots__ = ("_connection", "_fault", "_message", "_seal", "attempts", "body", "cut", "subject")

    def __init__(self, connection: Connection, seal: Seal, message: Msg) -> None:
        self._connection = connection
        self._seal = seal
        self._message = message
        self._fault: str | None = ""
        """Empty: not looked at yet."""
        self.subject = message.subject
        self.body = message.data
        self.attempts = _attempts(message)
        self.cut = HEADER in (message.headers or {})

    @property
    def fault(self) -> str | None:
        """See `Delivery`; the first time it reads the whole body, so that is best done on a thread."""
        if self._fault == "":
            message = self._message
            ours = self._seal.fits(message.subject, message.headers, message.data, cut=self.cut)
            self._fault = None if ours else NOT_OURS
        return self._fault

    async def collect(self) -> int:
        """Fetch the parcel that the message speaks of; how many bytes. Raises `Unavailable`."""
        ours = self.fault is None  # asked before the pieces are there: of what speaks of them
        whole = await collect(self._connection, self._message.data, self._seal if ours else None)
        if whole is None:
            self._fault = self._fault or LOST
            return 0
        self.body = whole
        return len(whole)

    async def ack(self) -> None:
        """See `Delivery`; an acknowledgement that is lost only means that it comes again."""
        with contextlib.suppress(nats.errors.Error, OSError, FulcrumError):
            await self._answer(b"+ACK")
            if self.cut and self.fault is None:  # who is not believed names nothing that may go
                await discard(self._connection, self._message.data)

    async def again(self, delay: float) -> None:
        """See `Delivery`."""
        with contextlib.suppress(nats.errors.Error, OSError, FulcrumError):
            await self._answer(b"-NAK " + json.dumps({"delay": round(delay * 1e9)}).encode())

    async def _answer(self, word: bytes) -> None:
        await self._connection.client.publish(self._message.reply, word)


def _attempts(message: Msg) -> int:
    """From its reply subject: `$JS.ACK.<...>.<deliveries>.<...>`, of 9 tokens or of 12 with domain and account."""
    parts = message.reply.split(".")
    place = -5 if len(parts) < 11 else 6  # noqa: PLR2004 - the two forms of a reply subject
    try:
        return int(parts[place])
    except (IndexError, ValueError):
        return 1


class JetStreamAuditFeed:
    """An `AuditFeed`. Closing it closes the connection."""

    def __init__(self, connection: Connection, seal: Seal, *, ack_wait: float = _ACK_WAIT) -> None:
        self._connection = connection
        self._seal = seal
        self._post = Post(connection)
        self._ack_wait = ack_wait
        self._inbox = ""
        self._numbers = count(1)
        self._queue: asyncio.Queue[Msg | None] = asyncio.Queue()
        connection.join(self._attach, lambda: self._queue.put_nowait(None))

    async def _attach(self, client: Client) -> None:
        self._queue = asyncio.Queue()  # what is left of the old connection comes again
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._queue.put)
        self._inbox = inbox

    async def fetch(self, most: int, wait: float) -> Sequence[Delivery]:
        """See `AuditFeed`."""
        try:
            messages = await self._pull(most, wait)
        except Refused as exc:
            await self._make_anew()
            raise Unavailable(f"{exc}; made anew, asked again at the next turn") from exc
        found: list[Delivery] = []
        collected = 0
        for message in messages:
            delivery = _Delivery(self._connection, self._seal, message)
            if delivery.cut:
                try:
                    if collected > _MOST_COLLECTED:
                        raise self._connection.unavailable("enough for one batch")
                    collected += await delivery.collect()
                except Unavailable:
                    await delivery.again(1.0)
                    continue
            found.append(delivery)
        return found

    async def _pull(self, most: int, wait: float) -> list[Msg]:
        """What is there; if nothing, the first that comes."""
        late: list[Msg] = []
        while len(late) < most and not self._queue.empty():  # came after an earlier question was given up
            message = self._queue.get_nowait()
            if message is not None and message.reply:
                late.append(message)
        if late:
            return late
        return await self._ask({"batch": most, "no_wait": True}, 0.0) or await self._ask(
            {"batch": 1, "expires": round(wait * 1e9)}, wait
        )

    async def _ask(self, question: Mapping[str, object], wait: float) -> list[Msg]:
        queue = self._queue
        if not self._inbox:
            raise self._connection.unavailable("the connection is not ready yet")
        asked = f"{self._inbox}.{next(self._numbers)}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.FULCRUM_AUDIT.{CONSUMER}"
        try:
            await self._connection.client.publish(subject, json.dumps(question).encode(), reply=asked)
        except (nats.errors.Error, OSError) as exc:
            raise self._connection.unavailable(str(exc) or type(exc).__name__) from exc
        found: list[Msg] = []
        message: Msg | None = None
        try:
            async with asyncio.timeout(wait + self._connection.config.timeout):
                while len(found) < cast("int", question["batch"]):
                    message = await queue.get()
                    if message is None:
                        break
                    if message.reply:
                        found.append(message)
                    elif message.subject == asked:
                        self._ended(message)
                        break
        except TimeoutError:
            message = None
        if message is None and not found:
            raise self._connection.unavailable("the consumer does not answer")
        return found

    def _ended(self, message: Msg) -> None:
        """Why a question has ended; nothing new is no fault."""
        headers = message.headers or {}
        status, said = headers.get("Status", ""), headers.get("Description", "")
        if status not in _NOTHING and "Batch Completed" not in said and "MaxAckPending" not in said:
            raise Refused(str(self._connection.unavailable(f"the consumer answers {status} {said}")), int(status or 0))

    async def _make_anew(self) -> None:
        with contextlib.suppress(FulcrumError):
            await self.prepare()
            _log.warning("the audit stream's consumer is made anew", place=self._connection.config.place)

    async def prepare(self) -> None:
        """Make streams and consumer where they are missing. Raises `Unavailable`, `Invalid`."""
        await ensure_streams(self._connection)
        await ensure_consumer(self._connection, ack_wait=self._ack_wait, max_ack_pending=_MOST_UNACKNOWLEDGED)

    async def confirm(self, stored: Mapping[str, int]) -> None:
        """See `AuditFeed`."""
        letters = [
            Letter(stored_subject(chain), b"%d" % seq, "FULCRUM_STORED", headers={SEAL: self._seal.stored(chain, seq)})
            for chain, seq in stored.items()
        ]
        try:
            await self._post.send(letters)
        except Unavailable:  # without the stream those who listen hear it, and nobody acknowledges
            await ensure_streams(self._connection)
            await self._post.send(letters)

    async def lag(self) -> StreamLag:
        """See `AuditFeed`."""
        info = await self._connection.api(f"CONSUMER.INFO.FULCRUM_AUDIT.{CONSUMER}")
        return StreamLag(int(info.get("num_pending", 0)), int(info.get("num_ack_pending", 0)))

    async def close(self) -> None:
        """See `AuditFeed`."""
        await self._connection.close()
