"""What the control plane records: every change of keys and budgets, durable before it takes effect."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from fulcrum_mcp.core.call import Principal

__all__ = ["BUDGET_CREATED", "BUDGET_DELETED", "KEY_CREATED", "KEY_REVOKED", "Record", "unrecorded"]

KEY_CREATED: Final = "dev.fulcrum.auth.key_created"
KEY_REVOKED: Final = "dev.fulcrum.auth.key_revoked"
BUDGET_CREATED: Final = "dev.fulcrum.budget.created"
BUDGET_DELETED: Final = "dev.fulcrum.budget.deleted"


class Record(Protocol):
    """Puts one change into the audit trail; called from any thread but the event loop's, and waits."""

    def __call__(self, principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        """Durable when it returns. Raises `Unavailable`: the change must not be made."""
        ...


def unrecorded(principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
    """For stores without a trail."""
    del principal, kind, subject, data
