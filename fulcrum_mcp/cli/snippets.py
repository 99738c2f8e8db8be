"""What to paste into MCP clients so that they come here, each in its own words."""

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["snippets"]


def snippets(url: str, key: str | None, shell_key: str | None) -> Iterator[tuple[str, str]]:
    """(where it belongs, the text). `key` stands in JSON, `shell_key` in a command; both None: no key is needed."""
    address = f"{url}/mcp"
    bearer = None if key is None else f"Bearer {key}"
    headers: dict[str, Any] = {} if bearer is None else {"headers": {"Authorization": bearer}}
    option = "" if shell_key is None else f' --header "Authorization: Bearer {shell_key}"'
    yield "Claude Code", f"claude mcp add --transport http fulcrum {address}{option}"
    # It starts commands only; this one is the usual bridge from standard input to Streamable HTTP.
    bridge: dict[str, Any] = {"command": "npx", "args": ["-y", "mcp-remote", address]}
    if bearer is not None:
        bridge["args"] += ["--header", "Authorization:${AUTHORIZATION}"]  # a blank in an argument is lost on Windows
        bridge["env"] = {"AUTHORIZATION": bearer}
    yield "Claude Desktop: claude_desktop_config.json", _json("mcpServers", bridge)
    yield "Cursor: .cursor/mcp.json", _json("mcpServers", {"url": address, **headers})
    yield "VS Code: .vscode/mcp.json", _json("servers", {"type": "http", "url": address, **headers})


def _json(key: str, entry: dict[str, Any]) -> str:
    return json.dumps({key: {"fulcrum": entry}})
