"""What the agent tries, in order, and what must come of it. Pure: the steps, and the judgement of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["LEAKED", "Answer", "Step", "Verdict", "judge", "listed", "steps"]

Verdict = Literal["allowed", "redacted", "denied", "over budget", "hidden", "unexpected"]

LEAKED = ("ghp_0123456789abcdefghijklmnopqrstuvwxyz", "ada@example.com")
"""What stands in the demo repository's history and must not reach the agent."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `want` is what must come of it; `code`, for a denial, the reason's code."""

    tool: str
    arguments: Mapping[str, Any]
    want: Verdict
    code: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent got: the text it reads, and the decision as data when the gateway said no."""

    text: str
    is_error: bool = False
    decision: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def codes(self) -> list[str]:
        """Codes of the reasons of a denial."""
        return [str(reason.get("code", "")) for reason in self.decision.get("reasons", [])]


def steps(repository: str) -> Sequence[Step]:
    """The calls of the story, against the git repository at that path."""
    noon = {"source_timezone": "Europe/Paris", "time": "12:00"}
    return (
        Step("time__get_current_time", {"timezone": "Europe/Paris"}, "allowed"),
        Step("git__git_log", {"repo_path": repository, "max_count": 5}, "redacted"),
        Step("git__git_commit", {"repo_path": repository, "message": "trust me"}, "denied", "writes"),
        Step("git__git_reset", {"repo_path": repository}, "hidden"),
        Step("time__convert_time", {**noon, "target_timezone": "Asia/Tokyo"}, "allowed"),
        Step("time__convert_time", {**noon, "target_timezone": "America/New_York"}, "allowed"),
        Step("time__convert_time", {**noon, "target_timezone": "Australia/Sydney"}, "over budget"),
    )


def judge(step: Step, answer: Answer) -> Verdict:
    """What came of a step, from the answer alone."""
    if answer.decision.get("effect") == "deny":
        codes = answer.codes()
        if any(code.startswith("budget") for code in codes):
            return "over budget"
        if step.want == "hidden":
            return "hidden"
        return "denied" if not step.code or step.code in codes else "unexpected"
    if answer.is_error or any(secret in answer.text for secret in LEAKED):
        return "unexpected"
    return "redacted" if any(mark in answer.text for mark in ("[token]", "[e-mail]")) else "allowed"


def listed(names: Sequence[str]) -> str | None:
    """None when the list holds what it must and hides what it must, otherwise what is wrong with it."""
    shown = {"time__get_current_time", "time__convert_time", "git__git_log", "git__git_commit"}
    hidden = {"git__git_reset", "git__git_checkout", "git__git_create_branch"}
    if missing := shown - set(names):
        return f"not listed: {', '.join(sorted(missing))}"
    if leaked := hidden & set(names):
        return f"listed, though no rule shows it: {', '.join(sorted(leaked))}"
    return None
