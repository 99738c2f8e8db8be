"""docker-compose.yml as the real Compose reads it, without an engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["ROOT", "composed", "composed_environment", "made_secrets"]

ROOT: Final = Path(__file__).parents[1]


def composed(env_file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `docker-compose` over the project's file, with the variables of one file and no others."""
    binary = Path(sys.executable).with_name("docker-compose")
    command = [str(binary), "--file", "docker-compose.yml", "--env-file", str(env_file), *options]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


def composed_environment(env_file: Path, service: str) -> dict[str, str]:
    """The environment of a service's container."""
    ran = composed(env_file, "config", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return {name: str(value) for name, value in document["services"][service]["environment"].items()}


def made_secrets(folder: Path) -> None:
    """Write `.env` there with the very commands of the deployment guide."""
    guide = (ROOT / "docs" / "DEPLOYMENT_GUIDE.md").read_text()
    script = next(block for block in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL) if ">.env" in block)
    subprocess.run(["sh", "-eu", "-c", script], cwd=folder, check=True, timeout=60)
