"""What the control plane records: every change, durable before it takes effect."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from fulcrum_mcp.core.call import Principal

__all__ = [
    "BUDGET_CREATED",
    "BUDGET_DELETED",
    "KEY_CREATED",
    "KEY_REVOKED",
    "POLICIES_PUBLISHED",
    "SWITCH_LIFTED",
    "SWITCH_THROWN",
    "Record",
    "unannounced",
    "unrecorded",
]

KEY_CREATED: Final = "dev.fulcrum.auth.key_created"
KEY_REVOKED: Final = "dev.fulcrum.auth.key_revoked"
BUDGET_CREATED: Final = "dev.fulcrum.budget.created"
BUDGET_DELETED: Final = "dev.fulcrum.budget.deleted"
SWITCH_THROWN: Final = "dev.fulcrum.kill_switch.thrown"
SWITCH_LIFTED: Final = "dev.fulcrum.kill_switch.lifted"
POLICIES_PUBLISHED: Final = "dev.fulcrum.policy.published"


class Record(Protocol):
    """Puts one change into the audit trail; called from any thread but the event loop's, and waits."""

    def __call__(self, principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        """Durable when it returns. Raises `Unavailable`: the change must not be made."""
        ...


def unrecorded(principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
    """For stores without a trail."""
    del principal, kind, subject, data


def unannounced() -> None:
    """For changes that nobody here has to be told of: gateways that share the store look for themselves."""
