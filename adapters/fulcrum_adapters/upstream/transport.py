"""The seam between what an HTTP upstream means (`http`, `reply`) and how bytes travel (`pool`, `aiohttp_twin`)."""

from typing import Protocol

__all__ = ["Exchange", "Headers", "Transport"]

Headers = list[tuple[bytes, bytes]]


class Exchange(Protocol):
    """One request whose answer's head has come. `headers`: lower-case names, all of them, in order."""

    status: int
    headers: Headers

    async def chunk(self) -> bytes:
        """The next bytes of the body, b"" at its proper end, then b"" again. Raises `Fault` when it breaks off.

        Cancelling closes the connection.
        """
        ...

    def abort(self) -> None:
        """Close the connection unless the answer is complete. Idempotent."""
        ...


class Transport(Protocol):
    """Sends requests to one origin."""

    async def exchange(self, verb: str, headers: Headers, body: bytes) -> Exchange:
        """Send once, wait for the head of the final (not 1xx) answer. Raises `Fault`; cancelling closes."""
        ...

    async def close(self) -> None:
        """End every connection; what waits fails. Idempotent."""
        ...
