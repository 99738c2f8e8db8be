"""Parcels of records into JetStream, and what the processors say that they have stored."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from fulcrum_adapters.jetstream.acks import MESSAGE_OVERHEAD, Letter, Post, Told
from fulcrum_adapters.jetstream.connection import Client, Connection, Msg, Refused
from fulcrum_adapters.jetstream.pieces import cut
from fulcrum_adapters.jetstream.seal import NOT_OURS, SEAL, Seal, id_of
from fulcrum_adapters.jetstream.streams import CONSUMER, ensure_streams
from fulcrum_adapters.jetstream.subjects import AUDIT, STORED, audit_subject, name_of, token_of
from fulcrum_mcp.errors import FulcrumError, Invalid, Unavailable
from fulcrum_mcp.ports import Parcel

__all__ = ["JetStreamAuditStream", "Letters", "parcel_name"]

_log = structlog.get_logger("fulcrum.nats")

_NO_STREAM: Final = 503
_NOT_FOUND: Final = 404
_MANY_BYTES: Final = 64 << 10
"""From here on sealing is done on a thread: calls are served on the loop meanwhile."""
_SAID_AGAIN: Final = 60.0
"""Seconds between two lines of the log about confirmations that are none."""


def parcel_name(parcel: Parcel) -> str:
    """What a duplicate of it would be known by."""
    again = f":{parcel.attempt}" if parcel.attempt else ""
    return f"{token_of(parcel.chain)}:{parcel.first}-{parcel.last}{again}"


class Letters(NamedTuple):
    """Parcels sealed for the stream: `first` must be there before `then` is sent."""

    first: Sequence[Letter]
    then: Sequence[Letter]


class JetStreamAuditStream:
    """An `AuditStream`. Closing it closes the connection."""

    def __init__(self, connection: Connection, seal: Seal, seconds: float | None = None) -> None:
        """`seconds` to wait for acknowledgements; None: the connection's timeout."""
        self._connection = connection
        self._seal = seal
        self._seconds = seconds
        self.ignored = 0
        """Confirmations that no processor of this installation has sealed."""
        self._said_at = -_SAID_AGAIN
        self._post = Post(connection)
        self._repairs: asyncio.Future[None] | None = None
        self._watchers: list[Callable[[str, int], None]] = []
        connection.join(self._attach)

    async def _attach(self, client: Client) -> None:
        await client.subscribe(f"{STORED}.*", cb=self._heard)

    async def _heard(self, message: Msg) -> None:
        found = self._confirmed(message) if self._watchers else None  # where nobody listens nothing is worth a look
        if found is not None:
            for told in self._watchers:
                told(*found)

    def _confirmed(self, message: Msg) -> tuple[str, int] | None:
        """(chain, seq), if a processor has said so; what anybody else says is counted, and not believed."""
        try:
            chain, seq = name_of(message.subject.removeprefix(f"{STORED}.")), int(message.data)
            if self._seal.confirms(message.headers, chain, seq):
                return chain, seq
        except (Invalid, ValueError):
            pass
        self.ignored += 1
        now = time.monotonic()
        if now - self._said_at >= _SAID_AGAIN:
            self._said_at = now
            place = self._connection.config.place
            _log.warning("a confirmation is not believed", place=place, reason=NOT_OURS, so_far=self.ignored)
        return None

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See `AuditStream`."""
        await self.send(await self.sealed(parcels))

    async def sealed(self, parcels: Sequence[Parcel]) -> Letters:
        """What `send` sends. Raises `Unavailable`: there is no connection; `Invalid`: one is too large."""
        limit = self._connection.client.max_payload
        found = self.few(parcels)
        return found if found is not None else await asyncio.to_thread(_sealed, parcels, self._seal, limit)

    def few(self, parcels: Sequence[Parcel]) -> Letters | None:
        """`sealed`, where that takes no time, on any thread; None where it would."""
        limit = self._connection.client.max_payload
        if sum(len(parcel.body) for parcel in parcels) >= _MANY_BYTES:
            return None
        return _sealed(parcels, self._seal, limit)

    def begin(self, letters: Sequence[Letter], told: Told) -> None:
        """`send`, begun, for at most `AT_ONCE` letters; `told` hears on the loop what it would have raised."""

        def answered(fault: Unavailable | None) -> None:
            if isinstance(fault, Refused) and fault.status == _NO_STREAM:
                self._repairs = asyncio.ensure_future(self._make_anew())
            told(fault)

        self._post.begin(letters, answered, self._seconds)

    async def send(self, letters: Letters) -> None:
        """The second half of `publish`."""
        try:
            if letters.first:
                await self._post.send(letters.first, self._seconds)
            await self._post.send(letters.then, self._seconds)
        except Refused as exc:
            if exc.status == _NO_STREAM:
                await self._make_anew()
            raise

    async def _make_anew(self) -> None:
        """Somebody removed a stream: what was in it comes again from the spools."""
        with contextlib.suppress(FulcrumError):
            await ensure_streams(self._connection)
            _log.warning("streams made anew", place=self._connection.config.place)

    async def stored(self) -> Mapping[str, int]:
        """See `AuditStream`."""
        found: dict[str, int] = {}
        for message in await _last_words(self._connection):
            pair = self._confirmed(message)
            if pair is not None:
                found[pair[0]] = max(pair[1], found.get(pair[0], 0))
        return found

    def watch(self, told: Callable[[str, int], None]) -> None:
        """See `AuditStream`."""
        self._watchers.append(told)

    async def oldest(self) -> float | None:
        """See `AuditStream`; by the server's clock alone.

        A server that is killed may keep for ever what was acknowledged: that is not on its way.
        """
        try:
            info = await self._connection.api("STREAM.INFO.FULCRUM_AUDIT")
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
            await self._make_anew()
            return None
        state = info["state"]
        if not state.get("messages"):
            return None
        first, acknowledged = state["first_ts"], await self._acknowledged()
        if acknowledged >= int(state["first_seq"]):
            first = await self._sent_after(acknowledged)
        return None if first is None else max(0.0, (_moment(info["ts"]) - _moment(first)).total_seconds())

    async def _acknowledged(self) -> int:
        """Up to where the processors have acknowledged everything: the stream's own number, 0 without processors."""
        try:
            info = await self._connection.api(f"CONSUMER.INFO.FULCRUM_AUDIT.{CONSUMER}")
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
            return 0
        return int(info["ack_floor"]["stream_seq"])

    async def _sent_after(self, number: int) -> str | None:
        """When the first message beyond a number was sent; None where there is none."""
        wanted = {"seq": number + 1, "next_by_subj": f"{AUDIT}.>"}
        try:
            answer = await self._connection.api("STREAM.MSG.GET.FULCRUM_AUDIT", wanted)
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
            return None
        sent: str = answer["message"]["time"]
        return sent

    async def close(self) -> None:
        """See `AuditStream`."""
        await self._connection.close()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _sealed(parcels: Sequence[Parcel], seal: Seal, limit: int) -> Letters:
    first: list[Letter] = []
    then: list[Letter] = []
    for parcel in parcels:
        subject, name = audit_subject(parcel.tenant), parcel_name(parcel)
        if len(parcel.body) + MESSAGE_OVERHEAD <= limit:
            sealed = seal.letter(subject, name, parcel.body)
            then.append(Letter(subject, parcel.body, "FULCRUM_AUDIT", id_of(name, sealed), {SEAL: sealed}))
        else:
            pieces, letter = cut(subject, parcel.body, name, limit, seal)
            first += pieces
            then.append(letter)
    return Letters(first, then)


async def _last_words(connection: Connection) -> list[Msg]:
    """The last message about every chain, by a consumer that lives for this question only."""
    try:
        info = await connection.api("STREAM.INFO.FULCRUM_STORED")
    except Refused as exc:
        if exc.status == _NOT_FOUND:  # nothing was ever confirmed
            return []
        raise
    found: list[Msg] = []
    left = int(info["state"].get("num_subjects", 0))
    if not left:
        return found
    client = connection.client
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=queue.put)
    settings = {
        "deliver_subject": inbox,
        "deliver_policy": "last_per_subject",
        "filter_subject": f"{STORED}.*",
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": 5_000_000_000,
        "mem_storage": True,
        "num_replicas": 1,
    }
    try:
        made = await connection.api(
            "CONSUMER.CREATE.FULCRUM_STORED", {"stream_name": "FULCRUM_STORED", "config": settings}
        )
        left = int(made.get("num_pending", 0)) + int(made.get("delivered", {}).get("consumer_seq", 0))
        while left > 0:
            async with asyncio.timeout(connection.config.timeout):
                found.append(await queue.get())
            left -= 1
    except TimeoutError:
        raise connection.unavailable("not all of FULCRUM_STORED was answered in time", doubtful=True) from None
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
    return found
