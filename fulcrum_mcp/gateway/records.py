"""What the data plane records: the `data` of `decided` and `finished` records, and of events about budgets."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Raw

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Amounts, LedgerEvent, Match, Reserve
from fulcrum_mcp.core.call import Call, Principal
from fulcrum_mcp.core.decision import Decision, Reason
from fulcrum_mcp.core.window import window_at
from fulcrum_mcp.gateway.identity_cache import IdentityCache
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.wire import encode

__all__ = [
    "DECIDED",
    "FINISHED",
    "amounts_data",
    "context_data",
    "decided_draft",
    "finished_draft",
    "ledger_event_draft",
    "outcome_unknown_draft",
    "reasons_data",
]

DECIDED: Final = "dev.fulcrum.tool_call.decided"
FINISHED: Final = "dev.fulcrum.tool_call.finished"


def reasons_data(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    """Reasons as JSON values."""
    return [{"policy": r.policy, "rule": r.rule, "code": r.code, "message": r.message} for r in reasons]


def _who(principal: Principal) -> Raw:
    value: dict[str, Any] = {"agent": principal.agent, "key": principal.key, "roles": principal.roles}
    if principal.on_behalf_of is not None:
        value["on_behalf_of"] = principal.on_behalf_of
    return Raw(encode(value))


class _Said(NamedTuple):
    """The parts of a decision that many calls share, as JSON text."""

    reasons: Raw
    warnings: Raw
    policies: Raw
    cost: Raw


def _said(decision: Decision) -> _Said:
    return _Said(
        Raw(encode(reasons_data(decision.reasons))),
        Raw(encode(reasons_data(decision.warnings))),
        Raw(encode(dict(decision.policies))),
        Raw(encode(decision.cost)),
    )


_who_text: Final = IdentityCache(_who, 4096)
_said_text: Final = IdentityCache(_said, 256)


def context_data(call: Call) -> dict[str, str]:
    """The call's context without what is not there."""
    context = call.context
    pairs = (
        ("envelope", context.envelope),
        ("workflow", context.workflow),
        ("execution", context.execution),
        ("task", context.task),
        ("client", context.client),
        ("protocol", context.protocol),
    )
    return {name: value for name, value in pairs if value}


def amounts_data(amounts: Amounts) -> dict[str, int]:
    """Amounts without those that are zero."""
    return {name: value for name, value in zip(Amounts._fields, amounts, strict=True) if value}


def _place(match: Match, reserve: Reserve) -> dict[str, Any]:
    """A budget's bucket, and the window that the reservation falls into."""
    budget = match.budget
    place: dict[str, Any] = {"id": budget.id, "bucket": match.bucket}
    if budget.tenant != reserve.tenant:
        place["owner"] = budget.tenant
    if budget.limits:
        place["starts"] = window_at(budget.period, budget.timezone, reserve.at).start
    return place


def decided_draft(
    call: Call,
    decision_id: str,
    decision: Decision,
    *,
    at: int,
    snapshot: str,
    reserve: Reserve | None,
    held: bool,
    arguments_mac: str,
    inputs: bytes | None,
    duration_us: int,
) -> RecordDraft:
    """The record that must be durable before a call is forwarded; `snapshot` is the revision it was judged by.

    `reserve`: what was asked of the ledger; `held`: it holds that. A ledger that was lost is rebuilt from `budgets`,
    `reserved` and `taints`, and from `charged` of `finished` records.
    """
    principal = call.principal
    said = _said_text(decision)
    data: dict[str, Any] = {
        "decision_id": decision_id,
        "call_id": call.id,
        "leg": call.leg,
        "method": call.method,
        "server": call.server,
        "tool": call.target,
        "pin": call.tool.pin if call.tool is not None else "",
        "principal": _who_text(principal),
        "effect": decision.effect,
        "snapshot": snapshot,
        "reasons": said.reasons,
        "warnings": said.warnings,
        "policies": said.policies,
        "cost": said.cost,
        "budgets": () if reserve is None else [_place(match, reserve) for match in reserve.matches],
        "arguments_mac": arguments_mac,
        "context": context_data(call),
        "duration_us": duration_us,
    }
    if reserve is not None and held:
        data["reserved"] = amounts_data(reserve.amounts)
    if decision.taints:
        data["taints"] = decision.taints
    return RecordDraft(
        id=decision_id.removeprefix("dec_"),
        tenant=principal.tenant,
        type=DECIDED,
        subject=call.id,
        time=at,
        data=encode(data),
        inputs=inputs,
    )


def finished_draft(
    call: Call,
    decision_id: str,
    *,
    outcome: str,
    is_error: bool,
    result_mac: str,
    size: int,
    duration_us: int,
    cost: Mapping[str, int],
    reasons: Sequence[Reason] = (),
    redacted: int = 0,
    charged: Amounts | None = None,
    taints: Sequence[str] = (),
) -> RecordDraft:
    """How a call ended: ok, error, timeout, cancelled, outcome_unknown or withheld; `size` in bytes.

    `charged`: what the ledger was told that the call cost, where this end settles it.
    """
    data: dict[str, Any] = {
        "decision_id": decision_id,
        "call_id": call.id,
        "leg": call.leg,
        "server": call.server,
        "tool": call.target,
        "principal": _who_text(call.principal),
        "outcome": outcome,
        "is_error": is_error,
        "result_mac": result_mac,
        "bytes": size,
        "duration_us": duration_us,
        "cost": cost,
    }
    if reasons:
        data["reasons"] = reasons_data(reasons)
    if redacted:
        data["redacted"] = redacted
    if charged is not None:
        data["charged"] = amounts_data(charged)
    if taints:
        data["taints"] = taints
    return RecordDraft(
        id=new_id(),
        tenant=call.principal.tenant,
        type=FINISHED,
        subject=call.id,
        time=now_ns(),
        data=encode(data),
    )


def outcome_unknown_draft(tenant: str, decided: Mapping[str, Any]) -> RecordDraft:
    """The end of a call whose gateway died: what was decided is known, what became of it is not."""
    names = ("decision_id", "call_id", "leg", "server", "tool", "principal")
    kept = {name: decided[name] for name in names if name in decided}
    data = {**kept, "outcome": "outcome_unknown", "is_error": True, "cost": decided.get("cost", {})}
    return RecordDraft(
        id=new_id(),
        tenant=tenant,
        type=FINISHED,
        subject=str(decided.get("call_id", "")),
        time=now_ns(),
        data=encode(data),
    )


def ledger_event_draft(event: LedgerEvent) -> RecordDraft:
    """A budget's threshold, warning or overrun."""
    return RecordDraft(
        id=new_id(),
        tenant=event.tenant,
        type=f"dev.fulcrum.{event.type}",
        subject=event.budget,
        time=now_ns(),
        data=encode({"budget": event.budget, "bucket": event.bucket, **event.data}),
    )
