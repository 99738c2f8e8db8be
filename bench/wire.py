"""The tools/call that every column answers: 1 KB of text to echo, with a mark of its own in every call."""

from typing import Final

__all__ = ["PAD", "VERSION", "head", "message"]

VERSION: Final = "2026-07-28"
PAD: Final = "abcdefghijklmnopqrstuvwxyz012345" * 31
"""Fills the argument up to 1,024 characters, beside the mark of 32."""

_META: Final = (
    f'"_meta":{{"io.modelcontextprotocol/protocolVersion":"{VERSION}","io.modelcontextprotocol/clientCapabilities":{{}},'
    '"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}'
)


def message(number: int, mark: str, tool: str = "echo") -> bytes:
    """The body of one call; `mark` is 32 characters that must come back."""
    return (
        f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{tool}",'
        f'"arguments":{{"text":"{mark}{PAD}"}},{_META}}}}}'
    ).encode()


def head(host: str, path: str, headers: dict[str, str], tool: str = "echo") -> bytes:
    """Everything before the value of content-length, which comes last."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"MCP-Protocol-Version: {VERSION}",
        "Mcp-Method: tools/call",
        f"Mcp-Name: {tool}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Content-Length: ",
    ]
    return "\r\n".join(lines).encode()
