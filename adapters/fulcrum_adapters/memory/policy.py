"""Policies as Python functions, for tests and dry runs."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.core.verdict import verdict_of

__all__ = ["MemoryPolicyEngine", "Rules"]

Rules = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From an input document to the values of a policy's rules, e.g. `{"allow": True}`."""


class MemoryPolicyEngine:
    """`PolicyEngine` over functions by policy name; `info` says what they need, everything if not given."""

    info: PolicyInfo

    def __init__(self, policies: Mapping[str, Rules], info: PolicyInfo | None = None) -> None:
        self._policies = dict(sorted(policies.items()))
        self.info = info or PolicyInfo(
            names=tuple(self._policies),
            revision="memory",
            judges_results=True,
            reads_history=True,
            reads_budget=True,
            list_reads_time=True,
        )

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """One verdict per policy, by name; a function that raises has one with `error`."""
        return tuple(_judge(name, rules, phase, document) for name, rules in self._policies.items())


def _judge(name: str, rules: Rules, phase: Phase, document: bytes) -> Verdict:
    try:
        values = rules(json.loads(document))
    except Exception as exc:  # noqa: BLE001 - whatever a policy does, it denies
        return Verdict(name, "memory", error=f"the policy failed: {exc}")
    return verdict_of(name, "memory", values, phase)
