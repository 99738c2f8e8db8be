"""Each requirement that matters has a test, and each test that the manifest names exists."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MANIFEST = Path(__file__).with_name("manifest.toml")
ID = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9-]+)+")


def names_in(path: Path) -> set[str]:
    """Names of the tests of one file: `test_x`, or `TestY::test_x`."""
    names = set[str]()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name.startswith("test_")
            }
        if isinstance(node, ast.Assign):  # a state machine of Hypothesis: `TestX = Machine.TestCase`
            names |= {target.id for target in node.targets if isinstance(target, ast.Name) and target.id[:4] == "Test"}
    return names


def problems(manifest: dict[str, Any], root: Path) -> list[str]:
    found = list[str]()
    seen = set[str]()
    for requirement in manifest.get("requirement", []):
        name = requirement.get("id", "?")
        found += [f"{name}: no {key}" for key in ("id", "source", "text", "tests") if not requirement.get(key)]
        found += [f"{name}: unknown key {key}" for key in requirement.keys() - {"id", "source", "text", "tests"}]
        if name in seen:
            found.append(f"{name}: stands twice")
        seen.add(name)
        if not ID.fullmatch(name):
            found.append(f"{name}: an id is area.what-it-is")
        for test in requirement.get("tests", []):
            path, _, node = test.partition("::")
            if not (root / path).is_file():
                found.append(f"{name}: {path} is gone")
            elif node not in names_in(root / path):
                found.append(f"{name}: {path} has no {node}")
    return found


def test_every_requirement_has_a_test_that_exists() -> None:
    assert problems(tomllib.loads(MANIFEST.read_text()), ROOT) == []


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"tests": []}, "a.b: no tests"),
        ({"tests": ["tests/gone.py::test_x"]}, "a.b: tests/gone.py is gone"),
        ({"tests": ["tests/t.py::test_renamed"]}, "a.b: tests/t.py has no test_renamed"),
        ({"source": ""}, "a.b: no source"),
        ({"id": "Whatever"}, "Whatever: an id is area.what-it-is"),
        ({"tets": ["x"]}, "a.b: unknown key tets"),
    ],
)
def test_planted_fault_in_a_manifest_is_found(entry: dict[str, Any], problem: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.py").write_text("def test_x(): pass\nclass TestY:\n    def test_z(self): pass\n")
    good = {"id": "a.b", "source": "s", "text": "t", "tests": ["tests/t.py::test_x", "tests/t.py::TestY::test_z"]}
    assert problems({"requirement": [good]}, tmp_path) == []
    assert problems({"requirement": [good | entry]}, tmp_path) == [problem]
    assert problems({"requirement": [good, good]}, tmp_path) == ["a.b: stands twice"]
