"""Parcels of records into JetStream, and what the processors say that they have stored."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from fulcrum_adapters.jetstream.acks import MESSAGE_OVERHEAD, Letter, Post
from fulcrum_adapters.jetstream.connection import Client, Connection, Msg, Refused
from fulcrum_adapters.jetstream.pieces import cut
from fulcrum_adapters.jetstream.streams import ensure_streams
from fulcrum_adapters.jetstream.subjects import STORED, audit_subject, name_of, token_of
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.ports import Parcel

__all__ = ["JetStreamAuditStream", "parcel_name"]

_log = structlog.get_logger("fulcrum.nats")

_NO_STREAM: Final = 503
_NOT_FOUND: Final = 404


def parcel_name(parcel: Parcel) -> str:
    """What a duplicate of it would be known by."""
    again = f":{parcel.attempt}" if parcel.attempt else ""
    return f"{token_of(parcel.chain)}:{parcel.first}-{parcel.last}{again}"


class JetStreamAuditStream:
    """An `AuditStream`. Closing it closes the connection."""

    def __init__(self, connection: Connection, seconds: float | None = None) -> None:
        """`seconds` to wait for acknowledgements; None: the connection's timeout."""
        self._connection = connection
        self._seconds = seconds
        self._post = Post(connection)
        self._watchers: list[Callable[[str, int], None]] = []
        connection.join(self._attach)

    async def _attach(self, client: Client) -> None:
        await client.subscribe(f"{STORED}.*", cb=self._heard)

    async def _heard(self, message: Msg) -> None:
        found = _stored(message)
        if found is not None:
            for told in self._watchers:
                told(*found)

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """See `AuditStream`."""
        limit = self._connection.client.max_payload
        first: list[Letter] = []
        then: list[Letter] = []
        for parcel in parcels:
            subject, name = audit_subject(parcel.tenant), parcel_name(parcel)
            if len(parcel.body) + MESSAGE_OVERHEAD <= limit:
                then.append(Letter(subject, parcel.body, "FULCRUM_AUDIT", name))
            else:
                pieces, letter = cut(subject, parcel.body, name, limit)
                first += pieces
                then.append(letter)
        try:
            if first:
                await self._post.send(first, self._seconds)
            await self._post.send(then, self._seconds)
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
        return await _all_stored(self._connection)

    def watch(self, told: Callable[[str, int], None]) -> None:
        """See `AuditStream`."""
        self._watchers.append(told)

    async def oldest(self) -> float | None:
        """See `AuditStream`; by the server's clock alone."""
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
        return max(0.0, (_moment(info["ts"]) - _moment(state["first_ts"])).total_seconds())

    async def close(self) -> None:
        """See `AuditStream`."""
        await self._connection.close()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _stored(message: Msg) -> tuple[str, int] | None:
    try:
        chain = name_of(message.subject.removeprefix(f"{STORED}."))
        return chain, int(message.data)
    except (Invalid, ValueError):
        return None


async def _all_stored(connection: Connection) -> dict[str, int]:
    """The last word on every chain, by a consumer that lives for this question only."""
    try:
        info = await connection.api("STREAM.INFO.FULCRUM_STORED")
    except Refused as exc:
        if exc.status == _NOT_FOUND:  # nothing was ever confirmed
            return {}
        raise
    found: dict[str, int] = {}
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
                message = await queue.get()
            left -= 1
            pair = _stored(message)
            if pair is not None:
                found[pair[0]] = max(pair[1], found.get(pair[0], 0))
    except TimeoutError:
        raise connection.unavailable("not all of FULCRUM_STORED was answered in time", doubtful=True) from None
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
    return found
