"""What a data plane stands on: ledger, history, audit log and keys, whichever adapters they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fulcrum_mcp.ports import AuditLog, BudgetLedger, History, Signer

__all__ = ["Keys", "Stores"]


class Keys(Signer, Protocol):
    """The keys of the audit trail."""

    def mac_key(self, tenant: str) -> bytes:
        """The tenant's key for `core.mac`; 32 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Stores:
    """Opened. `recover` finishes what dead processes left open and says how many calls; on a thread, now and then."""

    ledger: BudgetLedger
    history: History
    log: AuditLog
    keys: Keys
    recovered: int
    """Calls of dead processes that were recorded as `outcome_unknown` at the start."""
    recover: Callable[[], int]
    close: Callable[[], None]
    """What the journal does not close."""
