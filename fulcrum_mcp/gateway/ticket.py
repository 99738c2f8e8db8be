"""The ticket of an admitted call, and what a call is to budgets and history."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.core.call import Call
from fulcrum_mcp.core.decision import Decision, Redaction
from fulcrum_mcp.gateway.denial import Denial
from fulcrum_mcp.gateway.snapshot import Snapshot
from fulcrum_mcp.gateway.trace import Trace

__all__ = ["FREE", "Judged", "Ticket", "amounts_of", "scopes_of", "subject_of"]

FREE: Final = Amounts(0, 0, 0, 0, 0, 0)


class Ticket:
    """An admitted call: its decision is durable. Who holds it ends it exactly once; `spent` guards that."""

    __slots__ = (
        "amounts",
        "call",
        "decision",
        "decision_id",
        "document",
        "halts",
        "reserved",
        "root",
        "snapshot",
        "spent",
        "started_ns",
        "stopped",
        "task",
        "timings",
        "trace",
    )

    def __init__(self, call: Call, snapshot: Snapshot, decision: Decision, decision_id: str, document: bytes) -> None:
        self.call = call
        self.snapshot = snapshot
        self.decision = decision
        self.decision_id = decision_id
        self.document = document
        """The policy input of phase `call`."""
        self.amounts = FREE
        self.reserved = False
        self.root: Ticket | None = None
        """The ticket of leg 0, which holds the reservation of all legs."""
        self.spent = False
        self.stopped: Denial | None = None
        """Set when a kill switch has ended the call: all that its client may still see of it."""
        self.task: str | None = None
        """The task as which the upstream finishes the call later."""
        self.halts: list[Callable[[], object]] = []
        """How those who wait for its upstream are told that it was stopped."""
        self.started_ns = 0
        self.timings: tuple[int, int] = (0, 0)
        """Microseconds for deciding, and for reserving and recording."""
        self.trace: Trace | None = None

    @property
    def inspects(self) -> bool:
        """True if a policy may look at the result, so that it is held back until judged."""
        return self.snapshot.engine.info.judges_results


@dataclass(frozen=True, slots=True)
class Judged:
    """A result after inspection: `text` replaces it (None: unchanged), or it is withheld for `denial`."""

    text: bytes | None = None
    denial: Denial | None = None
    cost: Mapping[str, int] | None = None
    count: int = 0
    """How many places were redacted."""
    redactions: Sequence[Redaction] = ()
    taints: Sequence[str] = ()


def amounts_of(cost: Mapping[str, int]) -> Amounts:
    """What a cost rule says, one call where it says nothing."""
    return Amounts(
        cost.get("calls", 1),
        cost.get("usd_micros", 0),
        cost.get("input_tokens", 0),
        cost.get("output_tokens", 0),
        cost.get("bytes", 0),
        cost.get("seconds", 0),
    )


def subject_of(call: Call) -> str:
    """Whose history this call is part of: its envelope's, or its key's."""
    envelope = call.context.envelope
    return f"envelope:{envelope}" if envelope is not None else f"key:{call.principal.key}"


def scopes_of(call: Call) -> dict[str, str | None]:
    """The call's value for each kind of budget scope; None where it has none."""
    principal, context = call.principal, call.context
    return {
        "global": "",
        "tenant": principal.tenant,
        "agent": principal.agent,
        "key": principal.key,
        "workflow": context.workflow,
        "envelope": context.envelope,
        "server": call.server,
        "tool": f"{call.server}__{call.target}",
    }
