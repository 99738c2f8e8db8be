from typing import Any

import pytest

from fulcrum_mcp.demo.story import LEAKED, Answer, Step, Verdict, judge, listed, steps


def denied(code: str) -> Answer:
    return Answer("Denied.", is_error=True, decision={"effect": "deny", "reasons": [{"code": code, "message": "m"}]})


ALLOWED = Step("t", {}, "allowed")
WRITES = Step("t", {}, "denied", "writes")
CASES: list[tuple[Step, Answer, Verdict]] = [
    (ALLOWED, Answer("12:00"), "allowed"),
    (ALLOWED, Answer("Traceback", is_error=True), "unexpected"),
    (ALLOWED, Answer(f"Author: {LEAKED[1]}"), "unexpected"),
    (ALLOWED, Answer(f"[token], but also {LEAKED[0]}"), "unexpected"),
    (Step("t", {}, "redacted"), Answer("Ask [e-mail]"), "redacted"),
    (WRITES, denied("writes"), "denied"),
    (WRITES, denied("no_allow"), "unexpected"),
    (WRITES, Answer("done"), "allowed"),
    (Step("t", {}, "hidden"), denied("no_allow"), "hidden"),
    (Step("t", {}, "over budget"), denied("budget_exceeded"), "over budget"),
    (ALLOWED, denied("budget_exceeded"), "over budget"),
]


@pytest.mark.parametrize(("step", "answer", "verdict"), CASES)
def test_answer_is_judged_by_what_the_agent_got(step: Step, answer: Answer, verdict: Verdict) -> None:
    assert judge(step, answer) == verdict


def test_story_shows_every_kind_of_verdict() -> None:
    assert {step.want for step in steps("/repo")} == {"allowed", "redacted", "denied", "hidden", "over budget"}


def test_list_without_a_tool_that_must_show_is_a_fault() -> None:
    names = ["time__get_current_time", "time__convert_time", "git__git_log", "git__git_commit"]
    assert listed(names) is None
    assert listed(names[1:]) == "not listed: time__get_current_time"


def test_list_with_a_tool_that_must_hide_is_a_fault() -> None:
    names: list[Any] = ["time__get_current_time", "time__convert_time", "git__git_log", "git__git_commit"]
    assert listed([*names, "git__git_reset"]) == "listed, though no rule shows it: git__git_reset"
