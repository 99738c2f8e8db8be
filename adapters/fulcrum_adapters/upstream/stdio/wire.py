"""Reading and changing JSON-RPC messages without touching the rest of them.

Only the members that are looked at are decoded; every other value is carried as the bytes it came as, so unknown
fields, big integers and the writing of numbers survive.
"""

from collections.abc import Hashable, Mapping
from typing import Any, cast

import msgspec

__all__ = [
    "PROGRESS",
    "SUBSCRIPTION",
    "Message",
    "dump",
    "error",
    "members",
    "messages",
    "scalar",
    "with_member",
]

Message = dict[str, msgspec.Raw]

PROGRESS = "progressToken"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

_members = msgspec.json.Decoder(Message).decode
_batch = msgspec.json.Decoder(list[Message]).decode
_any = msgspec.json.Decoder().decode
dump = msgspec.json.Encoder().encode


def messages(line: bytes) -> list[Message]:
    """The message on a line, or the several of a batch; none when it is not JSON-RPC in UTF-8."""
    try:
        if not line.isascii():
            line.decode()
        found = [_members(line)] if line.lstrip()[:1] != b"[" else _batch(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return found if all("method" in message or "id" in message for message in found) else []


def members(value: bytes | msgspec.Raw | None) -> Message:
    """The members of an object; none of anything else."""
    if value is None:
        return {}
    try:
        return _members(value)
    except msgspec.DecodeError:
        return {}


def scalar(value: msgspec.Raw | None) -> Hashable:
    """A string or an integer that is an id or a token; None for anything else (1 and 1.0 and True are three things)."""
    if value is None:
        return None
    try:
        found = _any(value)
    except msgspec.DecodeError:
        return None
    return found if type(found) in (str, int) else None


def with_member(message: Message, path: tuple[str, ...], value: Any) -> None:
    """Put a value at a path of objects that exist; the rest keeps its bytes."""
    target = cast("dict[str, Any]", message)
    for name in path[:-1]:
        inner = members(target[name]) if not isinstance(target[name], dict) else target[name]
        target[name] = inner
        target = cast("dict[str, Any]", inner)
    target[path[-1]] = value


def error(number: int, text: str, document: Mapping[str, Any] | None) -> bytes:
    """A JSON-RPC error for a request that never reached a process."""
    answered = (document or {}).get("id")
    return dump({"jsonrpc": "2.0", "id": answered, "error": {"code": number, "message": text}})
