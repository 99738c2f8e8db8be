"""News of a new configuration by a key of a JetStream bucket: heard at once, and read again at every new connection."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Final

import nats.errors

from fulcrum_adapters.jetstream.acks import Letter, Post
from fulcrum_adapters.jetstream.connection import Client, Connection, Msg
from fulcrum_adapters.jetstream.streams import ensure_streams
from fulcrum_adapters.jetstream.subjects import CONFIG
from fulcrum_mcp.errors import Unavailable

__all__ = ["JetStreamConfigFeed"]

_STREAM: Final = "KV_FULCRUM_CONFIG"
_SOON: Final = 0.25
"""Seconds to wait for the bucket: where it is missing and others listen, nobody says so, and the next news wait."""
_NO_REVISION: Final = 1 << 63
"""No store counts so far."""


class JetStreamConfigFeed:
    """A `ConfigFeed`. Closing it closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._post = Post(connection)
        self._last: int | None = None
        self._changed = asyncio.Condition()
        self._closed = False
        connection.join(self._attach)

    async def _attach(self, client: Client) -> None:
        await client.subscribe(CONFIG, cb=self._heard)
        with contextlib.suppress(nats.errors.Error, OSError):
            answer = await client.request(
                f"$JS.API.DIRECT.GET.{_STREAM}.{CONFIG}", timeout=self._connection.config.timeout
            )
            await self._heard(answer)

    async def _heard(self, message: Msg) -> None:
        try:
            revision = json.loads(message.data)["revision"]
        except (ValueError, LookupError, TypeError, RecursionError):  # whoever may publish there can say anything
            return
        if type(revision) is int and 0 <= revision < _NO_REVISION and revision != self._last:
            async with self._changed:
                self._last = revision
                self._changed.notify_all()

    async def announce(self, revision: int, digest: str) -> None:
        """See `ConfigFeed`."""
        letter = Letter(CONFIG, json.dumps({"revision": revision, "digest": digest}).encode(), _STREAM)
        try:
            await self._post.send([letter], _SOON)
        except Unavailable:  # without the stream those who listen hear it, and nobody acknowledges
            await ensure_streams(self._connection)
            await self._post.send([letter])

    async def watch(self) -> AsyncIterator[int]:
        """See `ConfigFeed`."""
        seen: int | None = None
        while not self._closed:
            async with self._changed:
                while not self._closed and self._last == seen:
                    await self._changed.wait()
                seen = self._last
            if seen is not None and not self._closed:
                yield seen

    async def close(self) -> None:
        """See `ConfigFeed`."""
        self._closed = True
        async with self._changed:
            self._changed.notify_all()
        await self._connection.close()
