"""The streams between gateways and processors, and the news that configuration changed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["AuditFeed", "AuditStream", "ConfigFeed", "Delivery", "Parcel", "Seen", "StreamLag", "StreamView"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """Records of one chain, contiguous, with their inputs: the frames of a spool as they stand there."""

    tenant: str
    chain: str
    first: int
    last: int
    body: bytes
    attempt: int = 0
    """Grows when it is sent again because nobody stored it: then it must not be taken for a duplicate."""


class AuditStream(Protocol):
    """The gateway's side. Runs on an event loop."""

    async def publish(self, parcels: Sequence[Parcel]) -> None:
        """Send all, pipelined; returns once every one is acknowledged by the stream.

        Idempotent per (chain, first, last, attempt). Raises `Unavailable`: any of them may have arrived.
        """
        ...

    async def stored(self) -> Mapping[str, int]:
        """By chain: the highest contiguous seq that the archive holds, as last confirmed. Raises `Unavailable`.

        What no processor of this installation has confirmed does not count, here and in `watch`.
        """
        ...

    def watch(self, told: Callable[[str, int], None]) -> None:
        """Call `told(chain, seq)` on the loop at each confirmation; missed ones are in `stored`."""
        ...

    async def oldest(self) -> float | None:
        """For how many seconds the oldest parcel has waited that no processor has stored; None: there is none.

        A parcel that was published before that, and is not confirmed, is not in the stream any more. Raises
        `Unavailable`.
        """
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class Delivery(Protocol):
    """A parcel's body as it was received; comes again until it is acknowledged."""

    subject: str
    body: bytes
    attempts: int
    """How often it was delivered, this time included."""

    @property
    def fault(self) -> str | None:
        """Why nothing in it may be believed; None: a gateway of this installation has sent it, as it is."""
        ...

    async def ack(self) -> None:
        """It is in the archive."""
        ...

    async def again(self, delay: float) -> None:
        """Deliver it once more, after some seconds."""
        ...


class StreamLag(NamedTuple):
    """How far the processors are behind."""

    messages: int
    """Not yet delivered."""
    unacknowledged: int


class AuditFeed(Protocol):
    """The processor's side: a durable consumer that several processors share. Runs on an event loop."""

    async def fetch(self, most: int, wait: float) -> Sequence[Delivery]:
        """At most so many deliveries, none after `wait` seconds. Raises `Unavailable`."""
        ...

    async def confirm(self, stored: Mapping[str, int]) -> None:
        """Tell the gateways chain -> highest contiguous seq in the archive. Raises `Unavailable`."""
        ...

    async def lag(self) -> StreamLag:
        """Raises `Unavailable`."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class Seen(NamedTuple):
    """A message of the audit stream."""

    subject: str
    body: bytes
    fault: str | None
    """As a `Delivery`'s."""


class StreamView(Protocol):
    """What the audit stream holds, seen without taking any of it. Runs on an event loop."""

    def parcels(self) -> AsyncIterator[Seen]:
        """Each message that is there at the call, with a processor or not. Raises `Unavailable`."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...


class ConfigFeed(Protocol):
    """News that the configuration changed; its body is in the store. Runs on an event loop."""

    async def announce(self, revision: int, digest: str) -> None:
        """Tell every replica. Raises `Unavailable`; they also poll the store."""
        ...

    def watch(self) -> AsyncIterator[int]:
        """Revisions as they come, the present one first; survives reconnects, never raises."""
        ...

    async def close(self) -> None:
        """Idempotent."""
        ...
