from pathlib import Path

import pytest
from conftest_cli import Run


def test_servers_are_listed_with_their_lines_and_without_secrets(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKEN", "c4nary-secret")
    file = tmp_path / "mcp.json"
    file.write_text(
        '{"mcpServers": {"web": {"url": "http://x/mcp?k=${TOKEN}", "headers": {"A": "${TOKEN}"}},\n'
        '"cmd": {"command": "npx", "args": ["--key", "${TOKEN}"]}}}'
    )
    for more in ((), ("--json",)):
        said = run("servers", "list", "--config", str(file), *more)
        assert said.code == 0
        assert "npx --key ${TOKEN}" in said.out
        assert "mcp.json:2" in said.out
        assert "c4nary" not in said.out + said.err
