"""The policies of the demo and of the bench: admitted with their tests, nothing to warn of."""

from pathlib import Path

import pytest

from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.folder import read_folder
from fulcrum_adapters.rego.lint import lint
from fulcrum_adapters.rego.testing import read_suite, run_suite

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "fulcrum_mcp" / "demo" / "policies"


@pytest.mark.parametrize("folder", [DEMO, ROOT / "bench" / "policies"], ids=["demo", "bench"])
def test_it_is_admitted_with_its_tests_and_warns_of_nothing(folder: Path) -> None:
    source = read_folder(folder)
    admit(source, read_suite(folder), timeout=20)
    assert lint(source) == []


def test_cases_of_the_demo_reach_every_line() -> None:
    result = run_suite(read_folder(DEMO), read_suite(DEMO), coverage=True)
    assert [(found.case.name, found.faults) for found in result.cases if found.faults] == []
    assert len(result.rules) >= 3
    assert {path: sorted(lines.missed) for path, lines in result.coverage.items() if lines.missed} == {}
