"""Writing the audit trail, and signing what it claims."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from fulcrum_mcp.core.audit import RecordDraft, RecordRef

__all__ = ["AuditLog", "DistantLog", "Leadership", "OpenCall", "Signer"]


class OpenCall(NamedTuple):
    """A `decided` record that was forwarded and has no `finished` one: found at replay."""

    call: str
    leg: int
    tenant: str
    data: bytes
    """The `data` member of its `decided` record."""


class AuditLog(Protocol):
    """One writer's log, *synchronous*. A record that was returned is durable as the configured mode promises."""

    writer: str

    def heads(self) -> Mapping[str, int]:
        """By chain: the seq of its last record that is in the log."""
        ...

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        """Chain and write all drafts, one durable step for all of them: `prepare`, `write` and `conclude` at once.

        Raises `Unavailable` (full, failing, closed): then none of them is in the log.
        """
        ...

    def prepare(self, drafts: Sequence[RecordDraft]) -> Any:
        """*Quick*. Chain the drafts; what is returned goes through `write` and `conclude` before the next `prepare`."""
        ...

    def write(self, block: Any) -> None:
        """*Synchronous*, on any thread. One write and one durable step. Raises as `append`."""
        ...

    def conclude(self, block: Any, *, written: bool) -> None:
        """*Quick*. The block is in the log; or it is not, and the chains stand where they stood."""
        ...

    def close(self) -> None:
        """Flush and give up the writer's lock. Idempotent."""
        ...


@runtime_checkable
class DistantLog(AuditLog, Protocol):
    """An `AuditLog` whose durable step is taken elsewhere, so that no thread of ours needs to wait for it."""

    def begin(self, block: Any, told: Callable[[Exception | None], None]) -> None:
        """*Quick*. What `write` does, begun; `told` hears once, on any thread, what it would have raised, or None."""
        ...


class Signer(Protocol):
    """Signs what the audit trail claims; the private key never leaves it."""

    key_id: str
    """The first 16 hex digits of the SHA-256 of the raw public key."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes, Ed25519 (RFC 8032)."""
        ...

    def check(self, message: bytes, signature: bytes) -> bool:
        """Is it this key's signature?"""
        ...


class Leadership(Protocol):
    """One leader among all that share a store; lost by letting go, by dying, and with several machines by silence."""

    def acquire(self) -> bool:
        """Never waits; True also when it leads already. Raises `Unavailable`."""
        ...

    def release(self) -> None:
        """Idempotent."""
        ...
