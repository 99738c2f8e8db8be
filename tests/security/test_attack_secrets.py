"""What an operator wrote into a configuration and ought to have kept elsewhere is still shown to nobody."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fulcrum_mcp.settings import load

CANARY = "c4n4ry-value"


def shown(folder: Path, server: Mapping[str, Any]) -> str:
    path = folder / "mcp.json"
    path.write_bytes(msgspec.json.encode({"mcpServers": {"files": server}}))
    [found] = load(config=path, environ={"TOKEN": CANARY}).servers
    return found.shown


@pytest.mark.parametrize(
    "server",
    [
        {"url": f"https://files.example/mcp?key={CANARY}"},
        {"url": f"https://files.example/mcp?a=1&token={CANARY}"},
        {"command": "files", "args": ["--token", CANARY]},
        {"command": "files", "args": [f"--api-key={CANARY}"]},
        {"command": "files", "args": ["--access_token", CANARY, "/srv"]},
        {"command": "files", "args": [f"https://u:{CANARY}@files.example"]},
        {"command": "files", "args": ["sk-" + CANARY * 3]},
    ],
)
def test_a_secret_written_into_a_command_or_url_is_not_shown(tmp_path: Path, server: Mapping[str, Any]) -> None:
    assert CANARY not in shown(tmp_path, server)


def test_the_rest_is_shown_as_written(tmp_path: Path) -> None:
    args = ["-y", "server-files", "--root=/srv", "--token", "${TOKEN}", "/srv"]
    assert shown(tmp_path, {"command": "npx", "args": args}) == "npx " + " ".join(args)
