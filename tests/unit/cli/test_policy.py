"""`fulcrum policy`: what a person types, what comes back, and the exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fulcrum_mcp.cli import policy, policy_record
from fulcrum_mcp.errors import NotFound

MINE = """package fulcrum.policies.mine

import rego.v1

allow if input.tool.annotations.readOnlyHint == true

allow if {
	input.phase == "call"
	input.tool.name == "write_file"
	startswith(input.arguments.path, "/srv/drafts/")
}

require_approval contains {"code": "big_write", "message": "more than 100 kB"} if {
	input.phase == "call"
	count(input.arguments.content) > 100000
}
"""
CALL = {"tool": {"name": "write_file"}, "arguments": {"path": "/srv/drafts/a", "content": "x"}}
CASES = """- name: drafts may be written
  input: {tool: {name: write_file}, arguments: {path: /srv/drafts/a.md, content: hi}}
  want: {effect: allow}
  want_audit: {type: dev.fulcrum.tool_call.decided, effect: allow, policy: mine}
"""


def run(*words: str | Path, given: Any = None) -> Result:
    text = given if isinstance(given, str) else None if given is None else json.dumps(given)
    return CliRunner().invoke(policy.app, [str(word) for word in words], input=text)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    (folder / "cases").mkdir(parents=True)
    (folder / "mine.rego").write_text(MINE)
    (folder / "cases" / "mine.yaml").write_text(CASES)
    return folder


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "mine.rego"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_check_of_a_good_folder_is_quiet(mine: Path) -> None:
    result = run("check", mine)
    assert result.exit_code == 0, result.output
    assert "no fault found" in result.output


def test_check_finds_a_typo_with_its_place_and_a_guess(mine: Path) -> None:
    edit(mine, "startswith", "startwith")
    result = run("check", mine)
    assert result.exit_code == 1
    assert "mine.rego:10:2: error: there is no function startwith; did you mean startswith?" in result.output


def test_check_warns_and_fails_only_if_strict(mine: Path) -> None:
    edit(mine, '\tinput.phase == "call"\n\tinput.tool.name', "\tinput.tool.name")
    assert run("check", mine).exit_code == 0
    result = run("check", mine, "--strict")
    assert result.exit_code == 1
    assert "warning: rule allow reads arguments in phase list" in result.output


def test_check_names_a_tool_that_no_rule_allows(mine: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(
        json.dumps({"files": {"tools": [{"name": "read", "annotations": {"readOnlyHint": True}}, {"name": "zap"}]}})
    )
    result = run("check", mine, "--tools", tools)
    assert "no rule allows the tool files__zap" in result.output
    assert "files__read" not in result.output


def test_check_speaks_to_machines(mine: Path) -> None:
    edit(mine, "allow if input.tool", "allow if input.tol")
    document = json.loads(run("check", mine, "--json").output)
    assert document["ok"] is True
    assert document["problems"][0] | {"path": ""} == {
        "severity": "warning",
        "path": "",
        "line": 5,
        "column": 10,
        "message": "input has no member tol",
        "hint": "did you mean tool?",
    }


@pytest.mark.parametrize(
    "words", [("check", "nothing-there"), ("test", "nothing-there"), ("explain",), ("eval", "--policies", "observe")]
)
def test_wrong_use_is_exit_code_2_with_the_remedy(words: tuple[str, ...]) -> None:
    result = run(*words, given="no json")
    assert result.exit_code == 2
    assert ";" in result.output
    assert "Traceback" not in result.output


def test_test_runs_rules_and_cases(mine: Path) -> None:
    (mine / "mine_test.rego").write_text("package mine_test\n\ntest_a if true\n")
    result = run("test", mine, "--coverage")
    assert result.exit_code == 0, result.output
    assert "2 of 2 passed" in result.output
    assert "mine.rego: 77 %, not reached: 5, 14" in result.output or "not reached" in result.output


def test_test_fails_with_what_was_wanted_and_what_came(mine: Path) -> None:
    edit(mine, "/srv/drafts/", "/srv/other/")
    result = run("test", mine)
    assert result.exit_code == 1
    assert "drafts may be written: want effect 'allow', got 'deny'" in result.output
    assert json.loads(run("test", mine, "--json").output)["ok"] is False


def test_test_of_nothing_fails(mine: Path) -> None:
    (mine / "cases" / "mine.yaml").unlink()
    assert run("test", mine).exit_code == 1


def test_eval_prints_the_decision(mine: Path, tmp_path: Path) -> None:
    result = run("eval", "--policies", mine, given=CALL)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("allow")
    path = tmp_path / "input.json"
    path.write_text(json.dumps({**CALL, "arguments": {"path": "/srv/drafts/a", "content": "x" * 100_001}}))
    document = json.loads(run("eval", "--policies", mine, "--input", path, "--json").output)
    assert document["effect"] == "require_approval"
    assert document["reasons"] == [
        {"policy": "mine", "rule": "require_approval", "code": "big_write", "message": "more than 100 kB"}
    ]


def test_eval_takes_a_starters_name() -> None:
    assert run("eval", "--policies", "allow_all", given={"method": "vendor/unknown"}).output.startswith("allow")


def test_explain_names_file_and_line_and_shows_the_input(mine: Path) -> None:
    result = run("explain", "--policies", mine, "--input", "-", given=CALL)
    assert result.exit_code == 0, result.output
    assert "mine.rego:7: mine.allow: true" in result.output
    assert '"path": "/srv/drafts/a"' in result.output


def test_explain_says_when_no_rule_spoke(mine: Path) -> None:
    result = run("explain", "--policies", mine, "--input", "-", given={"tool": {"name": "other"}})
    assert "no rule spoke" in result.output


RECORD = {
    "decision_id": "dec_1",
    "effect": "deny",
    "reasons": [{"policy": "mine", "rule": "deny", "code": "c", "message": "no\x1b[31m"}],
    "warnings": [],
    "policies": {"mine": "old"},
}


def test_explain_of_a_recorded_decision(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_record, "recorded", lambda *_: (RECORD, {"phase": "call", **CALL}))
    result = run("explain", "dec_1", "--policies", mine)
    assert result.exit_code == 0, result.output
    assert "dec_1: deny" in result.output
    assert "mine.deny (c): no" in result.output
    assert "\x1b" not in result.output
    assert "changed since the decision: mine" in result.output
    assert "mine.rego:7: mine.allow: true" in result.output


def test_explain_of_a_decision_whose_input_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_record, "recorded", lambda *_: (RECORD, None))
    assert "not kept any more" in run("explain", "dec_1").output


def test_explain_of_an_unknown_decision_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise NotFound("no decision dec_1")

    monkeypatch.setattr(policy_record, "recorded", none)
    assert run("explain", "dec_1").exit_code == 1
