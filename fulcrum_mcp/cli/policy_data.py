"""Problems, decisions and test results as data for machines."""

from typing import Any

from fulcrum_mcp.core.decision import Decision
from fulcrum_mcp.core.policy import Problem

__all__ = ["decision_data", "problem_data", "suite_data"]


def problem_data(problem: Problem) -> dict[str, Any]:
    """Where and what."""
    names = ("severity", "path", "line", "column", "message", "hint")
    return {name: getattr(problem, name) for name in names}


def decision_data(decision: Decision) -> dict[str, Any]:
    """Everything a decision says."""

    def reasons(some: Any) -> list[dict[str, str]]:
        return [{key: getattr(one, key) for key in ("policy", "rule", "code", "message")} for one in some]

    return {
        "effect": decision.effect,
        "reasons": reasons(decision.reasons),
        "warnings": reasons(decision.warnings),
        "redact": [
            target.pointer or {"pattern": target.pattern, "with": target.replacement} for target in decision.redactions
        ],
        "taints": list(decision.taints),
        "cost": dict(decision.cost),
        "policies": dict(decision.policies),
    }


def suite_data(result: Any) -> dict[str, Any]:
    """Test rules, cases and coverage."""
    return {
        "ok": result.ok,
        "rules": [
            {"path": r.path, "line": r.line, "name": r.name, "passed": r.passed, "fault": r.fault} for r in result.rules
        ],
        "cases": [{"path": c.case.path, "name": c.case.name, "faults": list(c.faults)} for c in result.cases],
        "coverage": {
            path: {"covered": sorted(lines.covered), "missed": sorted(lines.missed)}
            for path, lines in result.coverage.items()
        },
    }
