"""Request bodies and queries, read strictly: what two parsers could read differently is refused."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from fulcrum_mcp.api.rest.errors import BadRequest
from fulcrum_mcp.errors import Invalid

__all__ = ["read_model", "read_object", "read_query"]

M = TypeVar("M", bound=BaseModel)


async def read_object(request: Request, most: int) -> dict[str, Any]:
    """A JSON object. Raises `BadRequest`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(415, "unsupported_media_type", "the body must be JSON; send Content-Type: application/json")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise BadRequest(415, "unsupported_media_type", "the body must not be compressed; leave out Content-Encoding")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BadRequest(413, "too_large", f"the body is larger than {most} bytes; send less")
    return parse_object(bytes(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """Strict JSON. Raises `BadRequest`."""
    try:
        document = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse)
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise BadRequest(400, "malformed", "the body is nested too deeply; write it flatter") from None
    except json.JSONDecodeError as exc:
        raise BadRequest(400, "malformed", f"the body is not JSON: {exc.msg} at line {exc.lineno}") from None
    except ValueError as exc:
        said = "it is not valid UTF-8 text" if isinstance(exc, UnicodeError) else str(exc)
        raise BadRequest(400, "malformed", f"the body cannot be read: {said}") from None
    if not isinstance(document, dict):
        raise BadRequest(400, "malformed", "the body must be a JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {json.dumps(name)[:64]} appears twice")
        found[name] = value
    return found


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def read_model(model: type[M], document: Mapping[str, Any]) -> M:
    """A document in its model's shape. Raises `Invalid`, each fault with its field."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        faults = exc.errors(include_input=False, include_url=False, include_context=False)
        known = ", ".join(model.model_fields)
        said = [
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: "
            + (f"unknown; known: {known}" if fault["type"] == "extra_forbidden" else _said(fault["msg"]))
            for fault in faults[:8]
        ]
        raise Invalid("; ".join(said)) from None


def _said(message: str) -> str:
    return f"must be {message.removeprefix('Input should be ')}" if message.startswith("Input should be ") else message


def read_query(model: type[M], request: Request) -> M:
    """The query in its model's shape; each name at most once. Raises `Invalid`."""
    pairs = request.query_params.multi_items()
    document = dict(pairs)
    if len(document) != len(pairs):
        raise Invalid("query: a name appears twice; send it once")
    return read_model(model, document)
