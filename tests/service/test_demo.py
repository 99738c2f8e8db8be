"""The demo, played as a person would: every scene as announced, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fulcrum_mcp.demo import servers

pytestmark = pytest.mark.service

DEMO = [sys.executable, "-m", "fulcrum_mcp.cli", "demo", "--exit"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The demo's folder lies where the test can look for it."""
    return {**os.environ, "TMPDIR": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "COLUMNS": "200"}


@pytest.fixture
def demo(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(DEMO, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.timeout(300)
def test_every_scene_goes_as_announced(environment: dict[str, str], tmp_path: Path) -> None:
    servers.fetch()
    began = time.monotonic()
    done = subprocess.run(
        DEMO, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    for scene in ("✔ listed", "✔ allowed", "✔ redacted", "✘ denied", "✘ hidden", "✘ over budget", "✔ whole", "✔ found"):
        assert scene in done.stdout
    assert "ghp_" not in done.stdout
    assert took < 60
    assert list(tmp_path.glob("fulcrum-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_no_process_and_no_folder(
    demo: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    gateway = until_gateway_runs(demo)
    family = [gateway, *gateway.children(recursive=True)]
    demo.send_signal(number)
    demo.wait(timeout=30)
    gone, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert len(gone) == len(family)
    assert list(tmp_path.glob("fulcrum-demo-*")) == []


def until_gateway_runs(demo: subprocess.Popen[bytes]) -> psutil.Process:
    """The gateway, once both of its MCP servers have been started too."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(demo.pid).children():
                if "up" in child.cmdline() and len(child.children()) >= 2:
                    return child
        time.sleep(0.02)
    raise AssertionError("the demo's gateway did not start within 60 s")
