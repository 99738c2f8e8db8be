"""What the guide for authors shows is true."""

import re
from pathlib import Path

from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.cases import read_cases
from fulcrum_adapters.rego.folder import read_folder
from fulcrum_adapters.rego.library import library, starter_names
from fulcrum_adapters.rego.lint import lint
from fulcrum_adapters.rego.testing import read_suite
from fulcrum_mcp.core.verdict import RULES

README = (Path(__file__).parents[2] / "policies" / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_example_is_admitted_with_its_case(tmp_path: Path) -> None:
    (tmp_path / "mine.rego").write_text(block("rego"))
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "mine.yaml").write_text(block("yaml"))
    assert len(read_cases(tmp_path)) == 1
    source = read_folder(tmp_path)
    admit(source, read_suite(tmp_path), timeout=20)
    assert lint(source) == []


def test_every_rule_starter_and_function_is_named() -> None:
    functions = {
        name for module in library() for name in re.findall(r"^([a-z]\w*)(?:\(| :=| if)", module.source, re.MULTILINE)
    }
    assert {name for name in (*RULES, *starter_names(), *functions) if f"{name}" not in README} == set()
