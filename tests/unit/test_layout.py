"""The house keeps its shape: sizes, names, a pure core, tests that mirror the source. Imports: see import-linter."""

import ast
import json
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
PACKAGES = {"": ROOT / "fulcrum_mcp", "adapters": ROOT / "adapters" / "fulcrum_adapters"}
PUBLIC = Path(__file__).with_name("public_names.json")

THINK, NEVER, MEDIAN = 400, 600, 170

IMPURE = {"asyncio", "io", "logging", "os", "random", "secrets", "socket", "subprocess", "threading"}
CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "now", "utcnow", "today"}


def sources() -> list[Path]:
    found = [path for folder in PACKAGES.values() for path in folder.rglob("*.py")]
    return sorted(path for path in found if "_gen" not in path.parts)


def modules() -> list[Path]:
    return [path for path in sources() if path.name not in {"__init__.py", "__main__.py"}]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def exported(path: Path) -> list[str] | None:
    """The literal `__all__` of a module, None when it has none."""
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            value: list[str] = ast.literal_eval(node.value)
            return value
    return None


@pytest.mark.filterwarnings("default:think:UserWarning")
def test_no_module_is_a_hall() -> None:
    sizes = {
        shown(path): lines(path)
        for path in [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    }
    assert {path: size for path, size in sizes.items() if size > NEVER} == {}
    for path, size in sizes.items():
        if size > THINK:
            warnings.warn(f"think: {path} has {size} lines", stacklevel=1)
    assert statistics.median(lines(path) for path in modules()) < MEDIAN


def test_every_module_says_why_it_exists() -> None:
    assert [shown(path) for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_every_module_lists_its_public_names() -> None:
    assert [shown(path) for path in modules() if exported(path) is None] == []


def test_public_names_change_on_purpose_only() -> None:
    """The contract between the parts; after a change on purpose: `python tests/unit/test_layout.py`."""
    assert json.loads(PUBLIC.read_text()) == contract()


def contract() -> dict[str, list[str]]:
    core = PACKAGES[""] / "core"
    paths = [*core.glob("*.py"), *(PACKAGES[""] / "ports").glob("*.py"), PACKAGES[""] / "errors.py"]
    paths += [path for path in PACKAGES["adapters"].glob("*/__init__.py") if exported(path)]
    return {shown(path): exported(path) or [] for path in sorted(paths) if exported(path)}


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", sorted((PACKAGES[""] / "core").glob("*.py")), ids=lambda path: path.stem)
def test_core_is_pure(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        top = name.partition(".")[0]
        assert top not in IMPURE, f"{path.name} imports {name}"
        assert top in sys.stdlib_module_names or name.startswith(("fulcrum_mcp.core", "fulcrum_mcp.errors")), name
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{path.name}:{node.lineno} is async"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            owner = node.func.value
            assert not (isinstance(owner, ast.Name) and owner.id in {"time", "datetime", "date"}), (
                f"{path.name} reads a clock"
            )


def test_unit_tests_mirror_the_source() -> None:
    """`tests/unit/core/test_budget_limits.py` speaks about `fulcrum_mcp/core/budget.py` (or a folder of that name)."""
    strays = list[str]()
    for test in sorted(UNIT.rglob("test_*.py")):
        place = test.relative_to(UNIT).parent
        name = test.stem.removeprefix("test_")
        if place == Path() and name == "layout":
            continue
        inside = place.parts[:1] == ("adapters",)
        folder = PACKAGES["adapters" if inside else ""].joinpath(*place.parts[1 if inside else 0 :])
        known = {path.stem.removeprefix("_") for path in folder.glob("*") if path.suffix == ".py" or path.is_dir()}
        if not folder.is_dir() or not any(name == module or name.startswith(f"{module}_") for module in known):
            strays.append(shown(test))
    assert strays == []


def test_every_module_of_the_inner_rooms_is_met_by_a_test() -> None:
    """Imported by a test, or named by a file of tests."""
    named = {
        ".".join(("fulcrum_mcp", *test.relative_to(UNIT).parent.parts, test.stem.removeprefix("test_")))
        for test in UNIT.rglob("test_*.py")
    }
    for test in (ROOT / "tests").rglob("*.py"):
        tree = ast.parse(test.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inner = [path for room in ("core", "processor", "settings") for path in (PACKAGES[""] / room).rglob("*.py")]
    forgotten = [
        shown(path)
        for path in sorted(inner)
        if path.name != "__init__.py" and ".".join(path.relative_to(ROOT).with_suffix("").parts) not in named
    ]
    assert forgotten == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import os\n", "imports os"),
        ("import msgspec\n", "msgspec"),
        ("async def f(): pass\n", "is async"),
        ("import time\nx = time.time_ns()\n", "reads a clock"),
    ],
)
def test_planted_impurity_is_found(source: str, fault: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(source)
    with pytest.raises(AssertionError, match=fault):
        test_core_is_pure(planted)


if __name__ == "__main__":
    PUBLIC.write_text(json.dumps(contract(), indent=1) + "\n")
