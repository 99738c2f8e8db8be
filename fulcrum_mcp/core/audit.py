"""Audit records: their exact bytes, the hash chain of one writer and tenant, and what a checkpoint signs."""

from dataclasses import dataclass

__all__ = ["RecordDraft", "RecordRef"]


@dataclass(frozen=True, slots=True)
class RecordDraft:
    """A record before it has its place in a chain.

    `data` is the JSON text of the record's `data` member; `inputs` is the redacted, readable copy of a call's
    arguments that lies beside the record (JSON text) and is no part of it.
    """

    id: str
    """UUIDv7, the CloudEvents `id`."""
    tenant: str
    type: str
    """For example `dev.fulcrum.tool_call.decided`."""
    subject: str
    """The call's id, or the id of what the record is about."""
    time: int
    """Nanoseconds since the Unix epoch."""
    data: bytes
    inputs: bytes | None = None


@dataclass(frozen=True, slots=True)
class RecordRef:
    """Where a record stands: its chain, its sequence number there and its hash (hex)."""

    id: str
    chain: str
    seq: int
    hash: str
