"""What the agent tries, in order, and what must come of it. Pure: the steps, and the judgement of an answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["LEAKED", "MASKS", "Answer", "Step", "Verdict", "gist", "judge", "listed", "steps"]

Verdict = Literal["allowed", "redacted", "denied", "over budget", "hidden", "unexpected"]

LEAKED = ("ghp_0123456789abcdefghijklmnopqrstuvwxyz", "ada@example.com")
"""What stands in the demo repository's history and must not reach the agent."""

MASKS = ("[token]", "[e-mail]")
"""What the demo's privacy policy puts in its place."""


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
    noon = {"time": "12:00", "source_timezone": "Europe/Paris"}
    return (
        Step("time__get_current_time", {"timezone": "Europe/Paris"}, "allowed"),
        Step("git__git_log", {"repo_path": repository, "max_count": 5}, "redacted"),
        Step("git__git_commit", {"repo_path": repository, "message": "trust me"}, "denied", "writes"),
        Step("git__git_reset", {"repo_path": repository}, "hidden"),
        Step("time__convert_time", {"target_timezone": "Asia/Tokyo", **noon}, "allowed"),
        Step("time__convert_time", {"target_timezone": "America/New_York", **noon}, "allowed"),
        Step("time__convert_time", {"target_timezone": "Australia/Sydney", **noon}, "over budget"),
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
    return "redacted" if any(mark in answer.text for mark in MASKS) else "allowed"


def listed(names: Sequence[str]) -> str | None:
    """None when the list holds what it must and hides what it must, otherwise what is wrong with it."""
    shown = {"time__get_current_time", "time__convert_time", "git__git_log", "git__git_commit"}
    hidden = {"git__git_reset", "git__git_checkout", "git__git_create_branch"}
    if missing := shown - set(names):
        return f"not listed: {', '.join(sorted(missing))}"
    if leaked := hidden & set(names):
        return f"listed, though no rule shows it: {', '.join(sorted(leaked))}"
    return None


def gist(text: str) -> str:
    """A result in a few words: the time that the time server names, or the first words of any other."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        time = value.get("target", value)
        if isinstance(time, dict) and "datetime" in time and "timezone" in time:
            return f"{str(time['datetime'])[11:16]} in {str(time['timezone']).rpartition('/')[2].replace('_', ' ')}"
    return " ".join(text.split())[:120]
