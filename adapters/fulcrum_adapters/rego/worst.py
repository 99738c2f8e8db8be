"""Inputs that try a policy's cost: long, wide, deep and odd values in the places that its rules read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fulcrum_adapters.rego.analysis import PolicySet
from fulcrum_mcp.core.call import Phase

__all__ = ["worst_inputs"]

_LONG = 100_000
_WIDE = 5_000
_DEEP = 80


def _deep() -> Any:
    value: Any = "x"
    for _ in range(_DEEP):
        value = {"a": [value]}
    return value


_VALUES: Mapping[str, Any] = {
    "a long string": "a" * _LONG,
    "a string of separators": "../;'\"%2e--/*{}[]()$\\" * (_LONG // 20),
    "long words": ("a" * 60 + "@") * (_LONG // 61),
    "a wide array": [f"https://h{number}.example.com/{number}" for number in range(_WIDE)],
    "a wide object": {f"key{number}": number for number in range(_WIDE)},
    "a deep value": _deep(),
    "a large number": 9_007_199_254_740_993,
    "a number of huge size": 1e300,
    "null": None,
}


def worst_inputs(policies: PolicySet) -> dict[Phase, list[tuple[str, str]]]:
    """(what it tries, JSON text) by phase. Every argument and result member that a rule names gets every value."""
    rules = [rule for definitions in policies.rules.values() for rule in definitions]
    names = {
        path[1]
        for rule in rules
        for path, _, _ in rule.inputs
        if len(path) > 1 and path[0] in {"arguments", "result"} and path[1] is not None
    }
    return {
        phase: [(name, json.dumps(_document(phase, value, names))) for name, value in _VALUES.items()]
        for phase in ("list", "call", "result")
    }


def _document(phase: Phase, value: Any, names: Iterable[str]) -> dict[str, Any]:
    text = value if isinstance(value, str) else "x"
    roles = [f"role{number}" for number in range(200)]
    document: dict[str, Any] = {
        "phase": phase,
        "method": "tools/list" if phase == "list" else "tools/call",
        "principal": {"tenant": "t", "agent": text[:2000], "key": "k", "roles": roles, "scopes": ["tool:call"]},
        "server": {"name": "s", "labels": {}},
        "tool": {"name": text[:2000], "title": text[:2000], "annotations": {"readOnlyHint": False}, "pin": "0" * 64},
        "context": {"time": {"rfc3339": "2026-01-01T00:00:00Z", "weekday": "Thursday", "hour": 0, "timezone": "UTC"}},
        "history": {"taints": roles, "calls": {f"s__t{number}": number for number in range(200)}, "approvals": []},
        "budget": {"remaining": {}},
    }
    members: dict[str, Any] = {"other": value, **dict.fromkeys(names, value)} if not isinstance(value, str) else {}
    if not members:  # keep within the size that the engine takes: share the length among the names
        wanted = sorted({"other", *names})
        members = {name: text[: max(1000, 2 * _LONG // len(wanted))] for name in wanted}
    if phase != "list":
        document["arguments"] = members
    if phase == "result":
        document["arguments"] = {}
        document["result"] = {"content": [{"type": "text", "text": text}], "structuredContent": members, **members}
    return document
