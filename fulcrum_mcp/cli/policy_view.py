"""Problems, decisions and test results as lines for people, safe for a terminal."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import typer

from fulcrum_mcp.cli.output import clean
from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.core.policy import Problem

__all__ = ["case_line", "decision_lines", "problem_lines", "record_lines", "rule_line", "spoken_line"]

_COLOURS = {"allow": typer.colors.GREEN, "deny": typer.colors.RED, "require_approval": typer.colors.YELLOW}


def _styled(text: str, *, fg: str, bold: bool = False) -> str:
    """In colour unless NO_COLOR forbids it; typer leaves it out where there is no terminal."""
    return text if "NO_COLOR" in os.environ else typer.style(text, fg=fg, bold=bold)


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """`path:line:column: error: message; hint`."""
    lines: list[str] = []
    for problem in problems:
        place = f"{problem.path}:{problem.line}:{problem.column}" if problem.line else problem.path
        colour = typer.colors.RED if problem.severity == "error" else typer.colors.YELLOW
        hint = f"; {problem.hint}" if problem.hint else ""
        word = _styled(problem.severity, fg=colour)
        lines.append(f"{clean(place)}: {word}: {clean(problem.message + hint)}")
    return lines


def decision_lines(decision: Decision) -> list[str]:
    """The effect, then everything that was said."""
    lines = [_styled(decision.effect, fg=_COLOURS[decision.effect], bold=True)]
    for title, reasons in (("because", decision.reasons), ("warning", decision.warnings)):
        for reason in reasons:
            speaker = f"{reason.policy}.{reason.rule}" if reason.policy else "no rule"
            lines.append(clean(f"  {title}: {speaker} ({reason.code}): {reason.message}"))
    for target in decision.redactions:
        what = target.pointer or f"every match of {target.pattern}"
        lines.append(clean(f"  redact: {what} -> {target.replacement}"))
    if decision.taints:
        lines.append(clean(f"  taint: {', '.join(decision.taints)}"))
    if decision.cost:
        lines.append(f"  cost: {', '.join(f'{key} {amount}' for key, amount in decision.cost.items())}")
    lines.append(
        clean(f"  asked: {', '.join(f'{name}@{revision}' for name, revision in decision.policies) or 'nobody'}")
    )
    return lines


def rule_line(rule: Any) -> str:
    """A test rule that failed."""
    failed = _styled("failed", fg=typer.colors.RED)
    return f"{clean(rule.path)}:{rule.line}: {failed}: {clean(rule.name)}: {clean(rule.fault)}"


def case_line(result: Any) -> str:
    """A case that failed, with what was wanted and what came."""
    failed = _styled("failed", fg=typer.colors.RED)
    return f"{clean(result.case.path)}: {failed}: {clean(result.case.name)}: {clean('; '.join(result.faults))}"


def spoken_line(one: Mapping[str, Any]) -> str:
    """`path:line: policy.rule: value`."""
    said = f"failed: {one['fault']}" if one["fault"] else json.dumps(one["value"], ensure_ascii=True)
    return clean(f"{one['path']}:{one['line']}: {one['policy']}.{one['rule']}: {said[:2000]}")


def record_lines(record: Mapping[str, Any] | None) -> list[str]:
    """A recorded decision: its effect and who said what."""
    if record is None:
        return []
    lines = [clean(f"{record.get('decision_id')}: {record.get('effect')}")]
    for kind in ("reasons", "warnings"):
        lines.extend(
            clean(f"  {reason['policy']}.{reason['rule']} ({reason['code']}): {reason['message']}")
            for reason in record.get(kind) or ()
        )
    return lines
