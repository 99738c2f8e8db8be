"""Verdicts and how they combine: the one place where the precedence of policies is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from fulcrum_mcp.core.call import Phase

__all__ = ["COST_KEYS", "Decision", "Effect", "Reason", "Redaction", "Verdict", "combine"]

Effect = Literal["allow", "deny", "require_approval"]

COST_KEYS = ("calls", "usd_micros", "input_tokens", "output_tokens", "bytes", "seconds")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: the policy and rule that spoke, a stable code for programs and a message for people and models."""

    policy: str
    rule: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """What to redact: an RFC 6901 `pointer` into the document, or a `pattern` over all its strings."""

    pointer: str | None = None
    pattern: str | None = None
    replacement: str = "[redacted]"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one policy says. `allow` is True only when its rule was the literal `true`; `error` denies."""

    policy: str
    revision: str
    allow: bool = False
    deny: tuple[Reason, ...] = ()
    require_approval: tuple[Reason, ...] = ()
    warn: tuple[Reason, ...] = ()
    redact: tuple[Redaction, ...] = ()
    taint: tuple[str, ...] = ()
    cost: Mapping[str, int] = field(default_factory=dict[str, int])
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """All verdicts combined.

    `reasons` explain the effect (for `allow`: the policies that allowed, code `allowed`); `policies` names every
    policy that was asked, with its revision.
    """

    effect: Effect
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    taints: tuple[str, ...] = ()
    cost: Mapping[str, int] = field(default_factory=dict[str, int])
    policies: tuple[tuple[str, str], ...] = ()


class _Said:
    """What all policies say together."""

    __slots__ = ("allowed", "approval", "cost", "deny", "redactions", "taints", "warnings")

    def __init__(self) -> None:
        self.deny: list[Reason] = []
        self.approval: list[Reason] = []
        self.warnings: list[Reason] = []
        self.redactions: list[Redaction] = []
        self.taints: list[str] = []
        self.cost: dict[str, int] = {}
        self.allowed: list[Reason] = []

    def add(self, verdict: Verdict) -> None:
        if verdict.error is not None:
            self.deny.append(Reason(verdict.policy, "error", "policy_error", verdict.error))
        if verdict.deny:
            self.deny.extend(verdict.deny)
        if verdict.require_approval:
            self.approval.extend(verdict.require_approval)
        if verdict.warn:
            self.warnings.extend(verdict.warn)
        if verdict.redact:
            self.redactions.extend(verdict.redact)
        if verdict.taint:
            self.taints.extend(label for label in verdict.taint if label not in self.taints)
        for key, amount in verdict.cost.items():
            self.cost[key] = max(self.cost.get(key, 0), amount)
        if verdict.allow:
            self.allowed.append(_allowed_by(verdict.policy))


def combine(verdicts: Sequence[Verdict], phase: Phase) -> Decision:
    """Combine verdicts: deny > require_approval > allow; an error denies; no allow denies.

    In phase `result` the call has been made, so only an explicit deny (or an error), redact, taint and cost count:
    silence allows. In phase `list` require_approval does not hide. Cost: per key the maximum over all policies.
    """
    said = _Said()
    for verdict in verdicts:
        said.add(verdict)
    effect: Effect = "allow"
    reasons = said.allowed
    if said.deny:
        effect, reasons = "deny", said.deny
    elif phase == "result":
        pass
    elif said.approval and phase == "call":
        effect, reasons = "require_approval", said.approval
    elif not said.allowed and not (said.approval and phase == "list"):
        effect = "deny"
        reasons = [Reason("", "", "no_allow", "no policy allows this")]
    return Decision(
        effect=effect,
        reasons=tuple(reasons),
        warnings=tuple(said.warnings),
        redactions=tuple(said.redactions),
        taints=tuple(said.taints),
        cost=said.cost,
        policies=tuple([(verdict.policy, verdict.revision) for verdict in verdicts]),
    )


@lru_cache(maxsize=1024)
def _allowed_by(policy: str) -> Reason:
    return Reason(policy, "allow", "allowed", f"allowed by policy {policy}")
