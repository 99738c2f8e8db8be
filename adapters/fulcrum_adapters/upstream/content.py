"""Content codings that were not asked for but came (RFC 9110 section 8.4.1): gzip and deflate, bounded; others refused.

We send `accept-encoding: identity`. A body never grows in memory beyond one step at a time, however it was packed.
"""

import zlib
from typing import Final

from .fault import Fault
from .transport import Exchange

__all__ = ["Inflated", "decoded"]

_STEP: Final = 256 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


class Inflated:
    """An exchange whose body is unpacked on the way."""

    __slots__ = ("_inner", "_input", "_unpack", "headers", "status")

    def __init__(self, inner: Exchange, wbits: int) -> None:
        self._inner = inner
        self._unpack = zlib.decompressobj(wbits)
        self._input = b""
        self.status = inner.status
        self.headers = inner.headers

    async def chunk(self) -> bytes:
        """At most 256 KiB of unpacked bytes at a time."""
        while True:
            if not self._input:
                self._input = await self._inner.chunk()
                if not self._input:
                    if not self._unpack.eof:
                        raise Fault("its packed body is cut off")
                    return b""
            if self._unpack.eof:
                self.abort()
                raise Fault("bytes follow the end of its packed body")
            try:
                data = self._unpack.decompress(self._input, _STEP)
            except zlib.error as exc:
                self.abort()
                raise Fault("its packed body cannot be unpacked") from exc
            self._input = self._unpack.unconsumed_tail or self._unpack.unused_data
            if data:
                return data

    def abort(self) -> None:
        """As the inner exchange does."""
        self._inner.abort()


def decoded(exchange: Exchange) -> Exchange:
    """The exchange with its content coding undone. Raises `Fault` for a coding we do not take."""
    codings = [
        coding
        for name, value in exchange.headers
        if name == b"content-encoding"
        for part in value.lower().split(b",")
        if (coding := part.strip()) not in (b"", b"identity")
    ]
    if not codings:
        return exchange
    if codings in ([b"gzip"], [b"x-gzip"]):
        return Inflated(exchange, _GZIP)
    if codings == [b"deflate"]:
        return Inflated(exchange, zlib.MAX_WBITS)
    exchange.abort()
    raise Fault(
        "its answer is packed in a way that was not asked for", remedy="let it honour accept-encoding: identity"
    )
