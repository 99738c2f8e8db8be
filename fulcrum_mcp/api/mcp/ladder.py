"""The header rules of MCP 2026-07-28 (Streamable HTTP, "Request Metadata"): headers and body must agree.

Says of each message which era it speaks, or refuses it with the protocol's own error. The SDK's
`mcp.shared.inbound` is the oracle in our tests; importing it at run time would cost a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fulcrum_mcp.gateway.methods import TARGET_MEMBER
from fulcrum_mcp.gateway.param_headers import decode_header
from fulcrum_mcp.gateway.upcall import META_CAPABILITIES, META_CLIENT, META_VERSION
from fulcrum_mcp.gateway.wire import HANDSHAKE_VERSIONS, MODERN_VERSIONS, Message, WireError

__all__ = ["Era", "classify", "client_name", "modern_version"]

HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
INVALID_PARAMS: Final = -32602

_ROUTING: Final = ("mcp-protocol-version", "mcp-method", "mcp-name")


@dataclass(frozen=True, slots=True)
class Era:
    """Which protocol a message speaks; `version` is empty where an older client names none."""

    modern: bool
    version: str


def modern_version(message: Message) -> Any:
    """The version that the body's `_meta` names, if any."""
    return message.meta.get(META_VERSION)


def client_name(message: Message) -> str | None:
    """The client's name as the message gives it: `_meta` or, for initialize, `clientInfo`. Never proof of anything."""
    info = message.params.get("clientInfo") if message.method == "initialize" else message.meta.get(META_CLIENT)
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) else None


def _mismatch(message: Message, what: str) -> WireError:
    return WireError(HEADER_MISMATCH, what, message.id)


def unsupported(message: Message, requested: str) -> WireError:
    """The version is not spoken here."""
    data = {"supported": list(MODERN_VERSIONS), "requested": requested}
    return WireError(UNSUPPORTED_VERSION, "Unsupported protocol version", message.id, data)


def classify(message: Message, values: Mapping[str, Sequence[str]] | None) -> Era:
    """The era of a message. `values`: all `mcp-*` headers by lower-case name; None for faces without headers.

    Raises:
        WireError: headers and body disagree, or the version is not supported.
    """
    if values is None:
        return _without_headers(message)
    for name in _ROUTING:
        if len(values.get(name, ())) > 1:
            raise _mismatch(message, f"{name} header appears more than once")
    versions = values.get("mcp-protocol-version", ())
    version = versions[0] if versions else None
    stated = modern_version(message)
    if version is None or version in HANDSHAKE_VERSIONS:
        if stated is not None and (stated not in HANDSHAKE_VERSIONS) and message.kind == "request":
            raise _mismatch(message, "mcp-protocol-version header does not match the request's protocol version")
        _check_mirrors(message, values)
        return Era(modern=False, version=version or "")
    if message.kind == "request":
        _check_request(message, values, version, stated)
    elif message.kind == "notification":
        methods = values.get("mcp-method", ())
        if methods and methods[0] != message.method:
            raise _mismatch(message, "mcp-method header does not match the message's method")
    if version not in MODERN_VERSIONS:
        raise unsupported(message, version)
    return Era(modern=True, version=version)


def _check_mirrors(message: Message, values: Mapping[str, Sequence[str]]) -> None:
    """Older versions know no `Mcp-Method` and `Mcp-Name`; where a client sends them they must not lie."""
    methods = values.get("mcp-method", ())
    if methods and methods[0] != message.method:
        raise _mismatch(message, "mcp-method header does not match the message's method")
    names = values.get("mcp-name", ())
    member = TARGET_MEMBER.get(message.method)
    if names and member is not None and decode_header(names[0]) != message.params.get(member, ""):
        raise _mismatch(message, f"mcp-name header does not match the request's {member!r}")


def _check_request(message: Message, values: Mapping[str, Sequence[str]], version: str, stated: Any) -> None:
    _check_meta(message)
    if stated != version:
        raise _mismatch(message, "mcp-protocol-version header does not match the request's protocol version")
    methods = values.get("mcp-method", ())
    if not methods or methods[0] != message.method:
        raise _mismatch(message, "mcp-method header does not match the request's method")
    member = TARGET_MEMBER.get(message.method) or ("taskId" if message.method.startswith("tasks/") else None)
    if member is None:
        return
    target = message.params.get(member)
    names = values.get("mcp-name", ())
    if target is None and not names:
        return
    if not names:
        if member == "taskId":
            return
        raise _mismatch(message, f"mcp-name header is missing but the request's {member!r} is present")
    if target is None or decode_header(names[0]) != target:
        raise _mismatch(message, f"mcp-name header does not match the request's {member!r}")


def _check_meta(message: Message) -> None:
    meta = message.params.get("_meta")
    if not isinstance(meta, dict):
        needed = f"{META_VERSION!r} and {META_CAPABILITIES!r}"
        raise WireError(INVALID_PARAMS, f"params._meta must be an object with {needed}", message.id)
    missing = [key for key in (META_VERSION, META_CAPABILITIES) if key not in meta]
    if missing:
        raise WireError(INVALID_PARAMS, f"params._meta lacks {', '.join(missing)}", message.id)


def _without_headers(message: Message) -> Era:
    stated = modern_version(message)
    if stated is None:
        return Era(modern=False, version="")
    if not isinstance(stated, str):
        raise WireError(INVALID_PARAMS, f"{META_VERSION} must be a string", message.id)
    if stated in MODERN_VERSIONS:
        if message.kind == "request":
            _check_meta(message)
        return Era(modern=True, version=stated)
    if stated in HANDSHAKE_VERSIONS:
        return Era(modern=False, version=stated)
    raise unsupported(message, stated)
