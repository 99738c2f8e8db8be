"""Judging: one compiled set of policies."""

from typing import Protocol

from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo

__all__ = ["PolicyEngine"]


class PolicyEngine(Protocol):
    """One compiled set of policies. Immutable: a changed set is a new engine.

    Built on the thread that evaluates it. Building raises `Invalid` with the place of the fault.
    """

    info: PolicyInfo

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """Judge one input document (JSON text, strictly parsed before); one verdict per policy, in a fixed order.

        Never raises for what a policy does: a policy that errs, panics or yields a wrong type has a verdict with
        `error`. Raises `Unavailable` when the engine itself does not answer. Cancellation leaves no trace.
        """
        ...
