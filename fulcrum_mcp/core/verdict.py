"""From the values of a policy's rules to its verdict: the one place where shapes are judged.

Every engine hands its raw values here. Nothing in it may be generous: only the literal `true` allows, and whatever is
not of the documented shape makes the verdict an error, which denies.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import COST_KEYS, Reason, Redaction, Verdict

__all__ = ["MAX_ITEMS", "MAX_TEXT", "PHASE_RULES", "RULES", "verdict_of"]

RULES = ("allow", "deny", "require_approval", "warn", "redact", "taint", "cost")

PHASE_RULES: Mapping[Phase, tuple[str, ...]] = {
    "list": ("allow", "deny", "require_approval"),
    "call": RULES,
    "result": ("deny", "warn", "redact", "taint", "cost"),
}
"""The rules that are asked in each phase; the others say nothing there."""

MAX_ITEMS = 1000
"""A rule that yields more has run wild: an error."""

MAX_TEXT = 2000
"""Characters kept of a reason's message."""

_MAX_COST = 2**63 - 1
_MAX_LABEL = 200
_REASON_KEYS = frozenset(("code", "message"))
_PATTERN_KEYS = frozenset(("pattern", "with"))


_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "a string"),
    ((int, float), "a number"),
    ((list, tuple), "an array"),
    (dict, "an object"),
)


class _Misshapen(Exception):
    """A rule's value has not the documented shape."""


def verdict_of(policy: str, revision: str, values: Mapping[str, Any], phase: Phase) -> Verdict:
    """The verdict that the values of a policy's rules make; rules that are undefined are absent from `values`.

    Rules that are not asked in `phase` are ignored. A wrong shape gives a verdict whose only word is its error.
    """
    asked = {rule: values[rule] for rule in PHASE_RULES[phase] if rule in values}
    try:
        return Verdict(
            policy=policy,
            revision=revision,
            allow=_allow(asked.get("allow", False)),
            deny=_reasons(policy, "deny", asked.get("deny", ())),
            require_approval=_reasons(policy, "require_approval", asked.get("require_approval", ())),
            warn=_reasons(policy, "warn", asked.get("warn", ())),
            redact=_redactions(asked.get("redact", ())),
            taint=_labels(asked.get("taint", ())),
            cost=_cost(asked.get("cost", {})),
        )
    except _Misshapen as exc:
        return Verdict(policy=policy, revision=revision, error=str(exc))


def _allow(value: Any) -> bool:
    if value is True:
        return True
    if value is False:
        return False
    raise _Misshapen(f"allow is {_kind(value)}; only true and false are answers")


def _items(rule: str, value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise _Misshapen(f"{rule} is {_kind(value)}, not a set; write `{rule} contains ...`")
    if len(value) > MAX_ITEMS:
        raise _Misshapen(f"{rule} holds {len(value)} entries; at most {MAX_ITEMS} are taken")
    return value


def _reasons(policy: str, rule: str, value: Any) -> tuple[Reason, ...]:
    if not value and isinstance(value, list | tuple):
        return ()
    reasons: list[Reason] = []
    for item in _items(rule, value):
        if isinstance(item, str):
            reasons.append(Reason(policy, rule, rule, item[:MAX_TEXT]))
            continue
        if not isinstance(item, dict) or not item.keys() <= _REASON_KEYS:
            raise _Misshapen(f"{rule} holds {_kind(item)}; a reason is a string or {{code, message}}")
        code = item.get("code", rule)
        message = item.get("message", code)
        if not isinstance(code, str) or not isinstance(message, str) or not code:
            raise _Misshapen(f"{rule} holds a reason whose code or message is not a string")
        reasons.append(Reason(policy, rule, code[:_MAX_LABEL], message[:MAX_TEXT]))
    return tuple(reasons)


def _redactions(value: Any) -> tuple[Redaction, ...]:
    targets: list[Redaction] = []
    for item in _items("redact", value):
        if isinstance(item, str):
            if not item.startswith("/"):
                raise _Misshapen(f"redact holds {item[:80]!r}, which is no JSON pointer; it begins with /")
            targets.append(Redaction(pointer=item))
            continue
        if not isinstance(item, dict) or "pattern" not in item or not item.keys() <= _PATTERN_KEYS:
            raise _Misshapen(f"redact holds {_kind(item)}; a target is a JSON pointer or {{pattern, with}}")
        pattern, replacement = item["pattern"], item.get("with", "[redacted]")
        if not isinstance(pattern, str) or not isinstance(replacement, str) or not pattern:
            raise _Misshapen("redact holds a pattern or replacement that is not a string")
        targets.append(Redaction(pattern=pattern, replacement=replacement))
    return tuple(targets)


def _labels(value: Any) -> tuple[str, ...]:
    labels = tuple(_items("taint", value))
    for label in labels:
        if not isinstance(label, str) or not 0 < len(label) <= _MAX_LABEL:
            raise _Misshapen(f"taint holds {_kind(label)}; a label is a string of 1 to {_MAX_LABEL} characters")
    return labels


def _cost(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _Misshapen(f"cost is {_kind(value)}, not an object of {', '.join(COST_KEYS)}")
    for key, amount in value.items():
        if key not in COST_KEYS:
            raise _Misshapen(f"cost has the key {str(key)[:80]!r}; known are {', '.join(COST_KEYS)}")
        if type(amount) is not int or not 0 <= amount <= _MAX_COST:
            raise _Misshapen(f"cost.{key} must be an integer >= 0")
    return value


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    for kinds, name in _NAMES:
        if isinstance(value, kinds):
            return name
    return f"a {type(value).__name__}"
