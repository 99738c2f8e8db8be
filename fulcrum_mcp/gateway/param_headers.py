"""`Mcp-Param-*` headers: read from a tool's schema and held to the body (MCP 2026-07-28, "Custom Headers").

Header values come from a model's arguments: they are compared with the body and never trusted by themselves.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["ParamHeader", "decode_header", "encode_header", "param_headers_of", "param_mismatch"]

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_PLAIN: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_DECIMAL: Final = re.compile(r"(-?[0-9]{1,4000})(?:\.0+)?")
"""A whole number in canonical decimal notation; others are compared as text."""
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_SINGLE: Final = (
    "items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties", "not",
    "if", "then", "else", "contentSchema",
)  # fmt: skip
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS: Final = ("patternProperties", "dependentSchemas", "$defs", "definitions")


class ParamHeader(NamedTuple):
    """A property that is mirrored in a header: its path in the arguments, the header's name, its JSON type."""

    path: tuple[str, ...]
    header: str
    type: str


def encode_header(value: str) -> str:
    """A header value that survives HTTP: plain if it can be, else `=?base64?...?=` of its UTF-8."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode_header(value: str) -> str | None:
    """The inverse of `encode_header`; None for a malformed or non-canonical sentinel, which equals nothing."""
    found = _SENTINEL.fullmatch(value)
    if found is None:
        return value
    try:
        content = base64.b64decode(found[1], validate=True)
        if base64.b64encode(content).decode() != found[1]:
            return None
        return content.decode()
    except (binascii.Error, ValueError):
        return None


def _positions(schema: object) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema position, with its chain of `properties` keys (None off that chain)."""
    stack: list[tuple[tuple[str, ...] | None, object]] = [((), schema)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        properties = node.get("properties")
        if isinstance(properties, dict):
            stack.extend((None if path is None else (*path, key), below) for key, below in properties.items())
        stack.extend((None, node.get(key)) for key in _SINGLE)
        for key in _LISTS:
            below = node.get(key)
            if isinstance(below, list):
                stack.extend((None, item) for item in below)
        for key in _MAPS:
            below = node.get(key)
            if isinstance(below, dict):
                stack.extend((None, item) for item in below.values())


def param_headers_of(schema: object) -> tuple[ParamHeader, ...]:
    """The headers a schema declares; none if any declaration is invalid (conforming clients then drop the tool)."""
    found: list[ParamHeader] = []
    names: set[str] = set()
    for path, node in _positions(schema):
        if "x-mcp-header" not in node:
            continue
        token, kind = node["x-mcp-header"], node.get("type")
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return ()
        if not isinstance(kind, str) or kind not in _TYPES or token.lower() in names:
            return ()
        names.add(token.lower())
        found.append(ParamHeader(path, f"mcp-param-{token.lower()}", kind))
    return tuple(found)


def _at(arguments: object, path: Sequence[str]) -> object:
    node = arguments
    for key in path:
        if not isinstance(node, dict):
            return None
        node = node.get(key)
    return node


def _rendered(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        try:
            return str(value)
        except ValueError:
            return None
    return None


def _matches(kind: str, value: object, rendered: str, header: str) -> bool:
    if kind == "integer" and isinstance(value, int | float) and not isinstance(value, bool):
        decimal = _DECIMAL.fullmatch(header)
        return header == rendered if decimal is None else int(decimal[1]) == value
    return header == rendered


def param_mismatch(
    declared: Sequence[ParamHeader], arguments: object, headers: Mapping[str, Sequence[str]]
) -> str | None:
    """Why the headers disagree with the body, or None. `headers`: lower-case names to all values received."""
    for item in declared:
        values = headers.get(item.header, ())
        value = _at(arguments, item.path)
        where = ".".join(item.path)
        if len(values) > 1:
            return f"{item.header} header appears more than once"
        rendered = None if value is None else _rendered(value)
        if rendered is None:
            if values:
                return f"{item.header} header is present but the argument {where!r} is not"
            continue
        if not values:
            return f"{item.header} header is missing but the argument {where!r} is present"
        decoded = decode_header(values[0])
        if decoded is None:
            return f"{item.header} header carries a malformed base64 value"
        if not _matches(item.type, value, rendered, decoded):
            return f"{item.header} header does not match the argument {where!r}"
    return None
