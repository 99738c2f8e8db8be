"""The audit stream as it stands, message by message: a work queue has no second consumer, so each is asked for."""

from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any, Final

from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_adapters.jetstream.pieces import HEADER, collect

__all__ = ["JetStreamView"]

_NOT_FOUND: Final = 404
_STREAM: Final = "FULCRUM_AUDIT"


class JetStreamView:
    """A `StreamView`; closing it closes the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def parcels(self) -> AsyncIterator[tuple[str, bytes]]:
        """See `StreamView`. A stream that is not there holds nothing."""
        try:
            info = await self._connection.api(f"STREAM.INFO.{_STREAM}")
        except Refused as exc:
            if exc.status == _NOT_FOUND:
                return
            raise
        seq, last = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
        while seq <= last:
            found = await self._next(seq)
            if found is None or int(found["seq"]) > last:
                return
            seq = int(found["seq"]) + 1
            body = b64decode(found.get("data") or "")
            if HEADER.encode() in b64decode(found.get("hdrs") or ""):
                body = await collect(self._connection, body) or body
            yield str(found["subject"]), body

    async def _next(self, seq: int) -> dict[str, Any] | None:
        """The first message from `seq` on that is still there."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{_STREAM}", {"seq": seq, "next_by_subj": ">"})
        except Refused as exc:
            if exc.status == _NOT_FOUND:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def close(self) -> None:
        """See `StreamView`."""
        await self._connection.close()
