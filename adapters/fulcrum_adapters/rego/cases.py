"""Policy cases as data: an input, the decision that is wanted and the audit event that is wanted.

Nothing here knows an engine: a case is judged by a function that is given, so that the same files run through the
engine, through an external OPA and through the gateway.

A file under `cases/` is a list of cases, or `{beside: [starter, ...], cases: [...]}` for policies that only deny and so
need one beside them that allows. A case: `name`, `input` (phase `call` and its method are filled in), `want` (any of
`effect`, `code`, `policy`, `message`, `warnings`, `redact`, `taints`, `cost`), `want_audit` (any members of the event).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fulcrum_adapters.rego.documents import read_document
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.errors import FulcrumError, Invalid

__all__ = ["Case", "CaseResult", "Evaluate", "read_cases", "run_cases"]

_MAX_CASES = 4 << 20
_PHASES: Mapping[str, Phase] = {"list": "list", "call": "call", "result": "result"}
_METHODS = {"list": "tools/list", "call": "tools/call", "result": "tools/call"}
_CASE_KEYS = {"name", "input", "want", "want_audit"}
_WANTS = {"effect", "code", "policy", "message", "warnings", "redact", "taints", "cost"}


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `beside` names starter policies that are judged with the policies under test."""

    path: str
    name: str
    phase: Phase
    input: Mapping[str, Any]
    want: Mapping[str, Any]
    want_audit: Mapping[str, Any] = field(default_factory=dict[str, Any])
    beside: tuple[str, ...] = ()

    @property
    def document(self) -> bytes:
        """The input as JSON text."""
        return json.dumps(self.input).encode()


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of a case; `faults` is empty when everything is as wanted."""

    case: Case
    decision: Decision | None
    faults: tuple[str, ...]


Evaluate = Callable[[Case], Decision]


def read_cases(folder: Path) -> tuple[Case, ...]:
    """All cases of a policy folder: `cases/*.yaml|yml|json` at any depth. Raises `Invalid` with the place."""
    found: list[Case] = []
    for path in sorted(folder.rglob("cases/*")):
        if path.suffix in {".yaml", ".yml", ".json"} and not path.name.startswith("."):
            found.extend(_read(path))
    return tuple(found)


def _read(path: Path) -> Iterable[Case]:
    document = read_document(path, _MAX_CASES)
    beside: Any = []
    if isinstance(document, dict):
        beside, document = document.get("beside", []), document.get("cases")
    if not isinstance(document, list) or not isinstance(beside, list):
        raise Invalid(f"{path}: not a list of cases; write `- name: ...` for each")
    for number, item in enumerate(document, 1):
        yield _case(path, number, item, tuple(str(name) for name in beside))


def _case(path: Path, number: int, item: Any, beside: tuple[str, ...]) -> Case:
    where = f"{path}: case {number}"
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise Invalid(f"{where}: no name; write `- name: what is shown`")
    where = f"{where} ({item['name']})"
    unknown = item.keys() - _CASE_KEYS
    if unknown:
        raise Invalid(f"{where}: unknown member {min(unknown)!r}; known are {', '.join(sorted(_CASE_KEYS))}")
    given, want, audit = item.get("input"), item.get("want"), item.get("want_audit", {})
    if not isinstance(given, dict) or not isinstance(want, dict) or not isinstance(audit, dict):
        raise Invalid(f"{where}: input, want and want_audit are objects; input and want must be there")
    if not want or want.keys() - _WANTS:
        raise Invalid(f"{where}: want holds at least one of {', '.join(sorted(_WANTS))}, and nothing else")
    phase = _PHASES.get(str(given.get("phase", "call")))
    if phase is None:
        raise Invalid(f"{where}: phase {given['phase']!r} is not one of list, call, result")
    full = {"phase": phase, "method": _METHODS[phase], **given}
    return Case(str(path), item["name"], phase, full, want, audit, beside)


def run_cases(cases: Iterable[Case], evaluate: Evaluate) -> tuple[CaseResult, ...]:
    """Judge every case and compare. What `evaluate` raises as `FulcrumError` is a fault of its case."""
    results: list[CaseResult] = []
    for case in cases:
        try:
            decision = evaluate(case)
        except FulcrumError as exc:
            results.append(CaseResult(case, None, (str(exc),)))
        else:
            results.append(CaseResult(case, decision, tuple(_compare(case, decision))))
    return tuple(results)


def _compare(case: Case, decision: Decision) -> Iterable[str]:
    said = [f"{reason.policy}/{reason.code}: {reason.message}" for reason in decision.reasons]
    got: Mapping[str, Any] = {
        "effect": decision.effect,
        "warnings": sorted(reason.code for reason in decision.warnings),
        "redact": sorted(target.pointer or target.pattern or "" for target in decision.redactions),
        "taints": sorted(decision.taints),
        "cost": dict(decision.cost),
    }
    for key, wanted in case.want.items():
        if key in {"code", "policy", "message"}:
            values = [getattr(reason, key) for reason in decision.reasons]
            fits = any(str(wanted) in value for value in values) if key == "message" else wanted in values
            if not fits:
                yield f"want {key} {wanted!r}, got {said or 'no reason'}"
        else:
            plain = sorted(wanted) if isinstance(wanted, list) else wanted
            if got[key] != plain:
                reasons = f" ({'; '.join(said)})" if key == "effect" and said else ""
                yield f"want {key} {plain!r}, got {got[key]!r}{reasons}"
    event = audit_event(case.phase, decision)
    for key, wanted in case.want_audit.items():
        fits = wanted in event["policies"] if key == "policy" else event.get(key) == wanted
        if not fits:
            yield f"want_audit {key} {wanted!r}, got {event['policies'] if key == 'policy' else event.get(key)!r}"


def audit_event(phase: Phase, decision: Decision) -> dict[str, Any]:
    """What the audit record of a decision will say; `policies` are those whose reasons decided."""
    return {
        "type": "" if phase == "list" else "dev.fulcrum.tool_call.decided",
        "effect": decision.effect,
        "policies": _deciding(decision.reasons),
        "codes": [reason.code for reason in decision.reasons],
    }


def _deciding(reasons: Sequence[Any]) -> list[str]:
    return sorted({reason.policy for reason in reasons})
