"""The policies that belong to Fulcrum are found in a checkout and in an unpacked wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from fulcrum_adapters.rego import RegoEngine, starter
from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.library import library, policies_root, starter_names
from fulcrum_adapters.rego.testing import Suite
admit(starter("read_only"), Suite(), timeout=20)
print(policies_root(), len(library()), len(starter_names()))
"""


def ask(place: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(place)], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.service
def test_policies_are_found_both_ways(tmp_path: Path) -> None:
    subprocess.run(
        [str(UV), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], check=True, timeout=110
    )
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    checkout = ask(ROOT)
    packaged = ask(unpacked)
    assert checkout[0] == str(ROOT / "policies")
    assert packaged[0] == str(unpacked / "fulcrum_mcp" / "_policies")
    assert packaged[1:] == checkout[1:] == ["6", "11"]
