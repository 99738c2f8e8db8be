"""The audit stream as it stands, message by message: a work queue has no second consumer, so each is asked for."""

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_adapters.jetstream.pieces import HEADER, LOST, collect
from fulcrum_adapters.jetstream.seal import NOT_OURS, Seal
from fulcrum_mcp.ports import Seen

__all__ = ["JetStreamView"]

_NOT_FOUND: Final = 404
_STREAM: Final = "FULCRUM_AUDIT"


class JetStreamView:
    """A `StreamView`; closing it closes the connection."""

    def __init__(self, connection: Connection, seal: Seal) -> None:
        self._connection = connection
        self._seal = seal

    async def parcels(self) -> AsyncIterator[Seen]:
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
            yield await self._seen(found)

    async def _seen(self, message: Mapping[str, Any]) -> Seen:
        subject, body = str(message["subject"]), b64decode(message.get("data") or "")
        headers = _headers(b64decode(message.get("hdrs") or ""))
        cut = HEADER in headers
        fault = None if self._seal.fits(subject, headers, body, cut=cut) else NOT_OURS
        whole = await collect(self._connection, body, self._seal if fault is None else None) if cut else body
        return Seen(subject, body if whole is None else whole, fault or (LOST if whole is None else None))

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


def _headers(block: bytes) -> Mapping[str, str]:
    """`NATS/1.0`, then a header a line; of two with one name the later counts, as it does for who is delivered to."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
