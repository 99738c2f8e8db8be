"""Denials a model can act on: which rule, why, what is left, when to retry, how to get approval.

A governance denial is never HTTP 400 (that kills client sessions): for tools/call it is a result with `isError`, for
other methods a JSON-RPC error 403001 with the same data.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from fulcrum_mcp.core.decision import Effect, Reason
from fulcrum_mcp.gateway.records import reasons_data
from fulcrum_mcp.gateway.wire import error_message, result_message

__all__ = ["DECISION_META", "DENIED_CODE", "Denial", "denial_message", "told", "tool_error"]

DENIED_CODE: Final = 403001
DECISION_META: Final = "dev.fulcrum/decision"
_OF_BUDGETS: Final = frozenset(("budget_exceeded", "rate_limited"))

_FOLDER = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+")


def told(fault: Exception) -> str:
    """What a caller may read of a fault: not in which folders the operator keeps things."""
    return _FOLDER.sub("", str(fault))


@dataclass(frozen=True, slots=True)
class Denial:
    """A call that is not forwarded (or whose result is withheld) and everything the caller may know about it.

    `retry_after` is in seconds; None means that sending the same call again will not help.
    """

    decision_id: str
    effect: Effect
    reasons: tuple[Reason, ...]
    retry_after: int | None = None

    @property
    def text(self) -> str:
        """One text for the model."""
        parts: list[str] = []
        for reason in self.reasons:
            by, code = _speaker(reason)
            what = "Approval required" if self.effect == "require_approval" else "Denied"
            parts.append(f"{what}{by}{code}: {reason.message.rstrip('.')}.")
        if self.retry_after is not None:
            parts.append(f"Retry after {self.retry_after} s.")
        if self.effect == "require_approval":
            parts.append("Ask the people responsible for this gateway, or change the call.")
        parts.append(f"Decision {self.decision_id}.")
        return " ".join(parts)

    @property
    def data(self) -> dict[str, Any]:
        """The same for programs."""
        data: dict[str, Any] = {
            "decision_id": self.decision_id,
            "effect": self.effect,
            "reasons": reasons_data(self.reasons),
        }
        if self.retry_after is not None:
            data["retry_after"] = self.retry_after
        return data


def _speaker(reason: Reason) -> tuple[str, str]:
    """Who said it, and the code where that tells more: a budget speaks for itself."""
    if reason.code in _OF_BUDGETS and not reason.rule:
        return f' by budget "{reason.policy}"', ""
    by = f" by policy {reason.policy}" if reason.policy else ""
    return by, f" ({reason.code})" if reason.code and reason.code != reason.message else ""


def tool_error(
    request_id: str | int | None, text: str, data: dict[str, Any], *, modern: bool, structured: bool
) -> bytes:
    """A tools/call result that says no. `structured`: the tool has no outputSchema, so clients will not validate."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
    if structured:
        result["structuredContent"] = data
    if modern:
        result["resultType"] = "complete"
    result["_meta"] = {DECISION_META: data}
    return result_message(request_id, result)


def denial_message(
    request_id: str | int | None, denial: Denial, *, method: str, modern: bool, structured: bool, deny_as: str
) -> bytes:
    """The answer to a denied request."""
    if method == "tools/call" and deny_as == "result":
        return tool_error(request_id, denial.text, denial.data, modern=modern, structured=structured)
    return error_message(request_id, DENIED_CODE, denial.text, {DECISION_META: denial.data})
