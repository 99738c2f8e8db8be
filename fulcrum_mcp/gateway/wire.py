"""The strict wire codec: one parse of a JSON-RPC message, so that what is judged is what is sent.

Refuses what two parsers could read differently: duplicate keys, NaN, lone surrogates, batches, and members whose
names only differ from JSON-RPC's own by case or Unicode folding (Go's decoder would take them). Keeps everything
else, big integers and unknown members included. Never builds typed objects of what it carries.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

__all__ = [
    "HANDSHAKE_VERSIONS",
    "LATEST_HANDSHAKE_VERSION",
    "MODERN_VERSIONS",
    "Message",
    "Peek",
    "ResultPeek",
    "WireError",
    "decode_strict",
    "encode",
    "error_message",
    "parse_message",
    "peek_message",
    "peek_result",
    "refuse_folded",
    "result_message",
    "same_id",
]

HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS: Final = ("2026-07-28",)
LATEST_HANDSHAKE_VERSION: Final = HANDSHAKE_VERSIONS[-1]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMS: Final = frozenset(
    {"name", "arguments", "uri", "_meta", "task", "taskId", "ref", "cursor", "requestState", "inputResponses"}
)
_FOLDED_ENVELOPE: Final = frozenset(key.casefold() for key in _ENVELOPE)
_FOLDED_PARAMS: Final = frozenset(key.casefold() for key in _PARAMS)

_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
"""JSON text of a value, compact; integers of any size, no NaN."""


class WireError(Exception):
    """A message that is refused before anything else is known of it; `code` is JSON-RPC's."""

    def __init__(self, code: int, message: str, request_id: str | int | None = None, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.data = data


Kind = Literal["request", "notification", "response"]


class Message:
    """One parsed message. `raw` is the canonical text of `document`: the bytes that are judged and sent."""

    __slots__ = ("document", "id", "kind", "method", "params", "raw")

    def __init__(
        self,
        document: dict[str, Any],
        raw: bytes,
        kind: "Kind",
    ) -> None:
        self.document = document
        self.raw = raw
        self.kind: Kind = kind
        self.id: str | int | None = document.get("id")
        self.method: str = document.get("method", "")
        params = document.get("params")
        self.params: dict[str, Any] = params if params is not None else {}

    def with_params(self, params: dict[str, Any]) -> "Message":
        """The same message with other params."""
        document = {**self.document, "params": params}
        return Message(document, encode(document), self.kind)

    @property
    def meta(self) -> dict[str, Any]:
        """`params._meta`, or an empty mapping."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                msg = f"duplicate member {key[:80]!r}"
                raise WireError(INVALID_REQUEST, msg)
            seen.add(key)
    return members


_LARGE: Final = 4 << 20
_MOST_VALUES: Final = 400_000
"""In a text larger than that: nobody else is served while it is read."""
_SIGNS: Final = (b",", b"[", b"{")


def decode_strict(text: bytes) -> tuple[Any, bytes]:
    """Decode JSON text strictly; returns the value and its canonical text.

    A text that already is canonical cannot hold a duplicate key (it would have become shorter), so the slower scan
    with hooks runs only for texts with white space, escapes or other spellings of numbers.

    Raises:
        WireError: not JSON by RFC 8259 with unique member names, nested too deeply, or more than a second's work.
    """
    if len(text) > _LARGE and sum(map(text.count, _SIGNS)) > _MOST_VALUES:
        raise WireError(PARSE_ERROR, f"Parse error: more than {_MOST_VALUES} values in {len(text)} bytes")
    try:
        value = _decode(text)
        canonical = encode(value)
        if canonical != text:
            json.loads(text, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise WireError(PARSE_ERROR, "Parse error: nested too deeply") from None
    except (msgspec.MsgspecError, ValueError) as fault:
        raise WireError(PARSE_ERROR, f"Parse error: {fault}") from None
    return value, canonical


def refuse_folded(members: Mapping[str, Any]) -> None:
    """Refuse a message with a member that a careless reader could take for one of JSON-RPC's. Raises `WireError`."""
    if members.keys() - _ENVELOPE:
        _refuse_folded(members, _ENVELOPE, _FOLDED_ENVELOPE, "the message")


def _refuse_folded(members: Mapping[str, Any], known: frozenset[str], folded: frozenset[str], where: str) -> None:
    for key in members:
        if key not in known and key.casefold() in folded:
            msg = f"Invalid Request: member {key[:40]!r} of {where} could be read as {key.casefold()!r}"
            raise WireError(INVALID_REQUEST, msg)


def _refuse_deep(document: Any, limit: int) -> None:
    level: list[Any] = [document]
    for _ in range(limit):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    msg = f"Invalid Request: nested deeper than {limit}"
    raise WireError(INVALID_REQUEST, msg)


def parse_message(text: bytes, max_depth: int = 128) -> Message:
    """Parse one JSON-RPC 2.0 message as MCP allows it.

    Raises:
        WireError: with JSON-RPC's code and, where it could be read, the request's id.
    """
    document, raw = decode_strict(text)
    if isinstance(document, list):
        raise WireError(INVALID_REQUEST, "Invalid Request: batches are not accepted; send one message a request")
    if not isinstance(document, dict):
        raise WireError(INVALID_REQUEST, "Invalid Request: a message is a JSON object")
    if raw.count(b"{") + raw.count(b"[") > max_depth:
        _refuse_deep(document, max_depth)
    request_id = document.get("id")
    if "id" in document and (isinstance(request_id, bool) or not isinstance(request_id, str | int)):
        raise WireError(INVALID_REQUEST, "Invalid Request: id must be a string or an integer")
    try:
        return _shape(document, raw)
    except WireError as fault:
        fault.request_id = request_id
        raise


def _shape(document: dict[str, Any], raw: bytes) -> Message:
    refuse_folded(document)
    if document.get("jsonrpc") != "2.0":
        raise WireError(INVALID_REQUEST, 'Invalid Request: jsonrpc must be "2.0"')
    if "method" not in document:
        if "id" not in document or ("result" in document) == ("error" in document) or "params" in document:
            raise WireError(INVALID_REQUEST, "Invalid Request: neither a request, a notification nor a response")
        return Message(document, raw, "response")
    if not isinstance(document["method"], str) or "result" in document or "error" in document:
        raise WireError(INVALID_REQUEST, "Invalid Request: method must be a string, without result or error")
    if "params" in document:
        params = document["params"]
        if not isinstance(params, dict):
            raise WireError(INVALID_REQUEST, "Invalid Request: params must be an object")
        if params.keys() - _PARAMS:
            _refuse_folded(params, _PARAMS, _FOLDED_PARAMS, "params")
    return Message(document, raw, "request" if "id" in document else "notification")


class Peek(Struct):
    """The outside of a message from an upstream, without reading its inside."""

    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET

    @property
    def is_response(self) -> bool:
        """True for a result or an error."""
        return self.method is UNSET and (self.result is not UNSET or self.error is not UNSET)


class ResultPeek(Struct):
    """What of a result decides how it is settled."""

    resultType: Any = None  # noqa: N815 - the wire's name
    isError: Any = None  # noqa: N815 - the wire's name
    requestState: Any = None  # noqa: N815 - the wire's name
    task: Any = None
    taskId: Any = None  # noqa: N815 - the wire's name
    status: Any = None


_peek = msgspec.json.Decoder(Peek).decode
_peek_result = msgspec.json.Decoder(ResultPeek).decode


def peek_message(text: bytes) -> Peek:
    """Look at a message from an upstream.

    Raises:
        WireError: it is no JSON object, or nested too deeply.
    """
    try:
        return _peek(text)
    except (msgspec.MsgspecError, RecursionError, ValueError) as fault:
        raise WireError(PARSE_ERROR, f"not a JSON-RPC message: {fault}") from None


def peek_result(text: bytes | Raw) -> ResultPeek:
    """Look at a result; a result that is no object has nothing to see."""
    try:
        return _peek_result(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return ResultPeek()


def same_id(raw: Raw | UnsetType, request_id: str | int | None) -> bool:
    """True if a raw `id` member is this id (type included)."""
    if raw is UNSET:
        return False
    text = bytes(raw)
    if text == encode(request_id):
        return True
    try:
        value = _decode(text)
    except (msgspec.MsgspecError, ValueError):
        return False
    return type(value) is type(request_id) and value == request_id


def error_message(request_id: str | int | None, code: int, message: str, data: object = None) -> bytes:
    """A JSON-RPC error as text."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def result_message(request_id: str | int | None, result: object) -> bytes:
    """A JSON-RPC result as text; `result` may hold `msgspec.Raw`."""
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})
