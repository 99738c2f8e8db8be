"""The wheel and the sdist, tried the way a stranger would: in a clean environment, run from `/`."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
PACKAGES = {"fulcrum_mcp": ROOT / "fulcrum_mcp", "fulcrum_adapters": ROOT / "adapters" / "fulcrum_adapters"}

EVERY_MODULE = """
import importlib, pkgutil
count = 0
for package in ("fulcrum_mcp", "fulcrum_adapters"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            count += 1
print(count)
"""


def run(*command: str | Path, timeout: float = 240) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    environment.update(UV_PYTHON_DOWNLOADS="never", PYTHONWARNINGS="error::SyntaxWarning")
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`FULCRUM_DIST` where `make build` has built, otherwise built here."""
    built = os.environ.get("FULCRUM_DIST")
    if built:
        return (ROOT / built).resolve()
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--out-dir", folder, ROOT)
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("fulcrum_mcp-*.whl")
    return found


@pytest.fixture(scope="session")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel and its run-time dependencies at locked versions."""
    environment = tmp_path_factory.mktemp("clean")
    run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "requirements.lock", wheel)
    return python.parent


def test_wheel_holds_every_source_file_of_both_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - names == set()
    assert not {name for name in names if name.startswith(("tests/", "bench/", "adapters/"))}


def test_sdist_builds_what_the_checkout_builds(dist: Path) -> None:
    (sdist,) = dist.glob("fulcrum_mcp-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "fulcrum_mcp/py.typed",
        "adapters/fulcrum_adapters/py.typed",
    } <= names
    assert not {name for name in names if name.startswith((".venv", ".cache", "node_modules"))}


@pytest.mark.service
def test_every_module_imports_from_the_wheel_with_run_time_dependencies_only(clean: Path) -> None:
    sources = [path for folder in PACKAGES.values() for path in folder.rglob("*.py") if path.name != "__main__.py"]
    assert int(run(clean / "python", "-W", "error", "-c", EVERY_MODULE)) == len(sources) - len(PACKAGES)


@pytest.mark.service
def test_command_runs_from_the_wheel_and_names_its_version(clean: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in run(clean / "fulcrum", "--version")


def test_run_time_dependencies_are_all_in_the_lock_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    blocks = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    locked = {line.partition("==")[0].strip().partition("[")[0]: line for line in blocks if "==" in line}
    wanted = {name.partition("[")[0].partition(">")[0].partition("=")[0].lower() for name in project["dependencies"]}
    assert wanted - locked.keys() == set()
    assert all("--hash=sha256:" in line for line in locked.values())


def test_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.service
def test_policies_that_come_with_it_are_found_from_the_wheel(clean: Path) -> None:
    names = run(
        clean / "python", "-c", "from fulcrum_adapters.rego.library import starter_names as n; print(*n())"
    ).split()
    assert sorted(names) == sorted(path.name for path in (ROOT / "policies" / "starter").iterdir() if path.is_dir())
    root = run(
        clean / "python", "-c", "from fulcrum_adapters.rego.library import policies_root as r; print(r())"
    ).strip()
    assert not Path(root).is_relative_to(ROOT)
    assert "passed" in run(clean / "fulcrum", "policy", "test", f"{root}/starter/read_only")
