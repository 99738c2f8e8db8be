"""Every policy that comes with Fulcrum: its tests pass, it is admitted, it warns of nothing, its cases cover it."""

from pathlib import Path

import pytest

from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import read_folder, starter
from fulcrum_adapters.rego.library import policies_root, starter_names
from fulcrum_adapters.rego.lint import lint
from fulcrum_adapters.rego.testing import read_suite, run_suite
from fulcrum_mcp.core.decision import combine

WANTED = (
    *("allow_all", "cost_table", "observe", "outbound_hosts", "path_confinement", "read_only", "redact_results"),
    *("role_allow_list", "secrets_in_arguments", "sql_kind", "working_hours"),
)
FOLDERS = [policies_root() / "starter" / name for name in WANTED]


def test_the_starters_are_those_that_are_announced() -> None:
    assert starter_names() == tuple(sorted(WANTED))


@pytest.mark.parametrize("folder", [*FOLDERS, policies_root() / "lib"], ids=lambda folder: folder.name)
def test_its_own_tests_pass(folder: Path) -> None:
    result = run_suite(read_folder(folder), read_suite(folder))
    assert [rule for rule in result.rules if not rule.passed] == []
    assert [(found.case.name, found.faults) for found in result.cases if found.faults] == []
    assert result.ok
    assert len(result.rules) > 0


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_has_cases_and_they_reach_every_line(folder: Path) -> None:
    suite = read_suite(folder)
    assert suite.cases
    result = run_suite(read_folder(folder), suite, coverage=True)
    assert {path: sorted(lines.missed) for path, lines in result.coverage.items() if lines.missed} == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_admitted_with_its_tests_and_warns_of_nothing(folder: Path) -> None:
    source = read_folder(folder)
    admit(source, read_suite(folder), timeout=20)
    assert lint(source) == []


@pytest.mark.parametrize("name", WANTED)
def test_named_alone_it_can_allow_something(name: str) -> None:
    """A policy that only denies comes with one that allows."""
    document = (
        b'{"phase":"call","method":"tools/call","principal":{"tenant":"t","agent":"a","key":"k","roles":[],"scopes":[]},'
        b'"server":{"name":"time","labels":{}},"tool":{"name":"now","annotations":{"readOnlyHint":true}},"arguments":{},'
        b'"context":{"time":{"weekday":"Tuesday","hour":10}}}'
    )
    assert combine(RegoEngine(starter(name)).judge("call", document), "call").effect == "allow"


@pytest.mark.parametrize("name", WANTED)
def test_only_the_policies_about_results_hold_answers_back(name: str) -> None:
    info = RegoEngine(starter(name)).info
    assert info.judges_results is (name == "redact_results")
    assert not info.reads_history
    assert not info.reads_budget
