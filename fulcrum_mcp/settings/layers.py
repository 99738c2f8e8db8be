"""Configuration files as they are written, and several of them as one: a later one adds, a contradiction is refused."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.place import Places, json_places, plain_json, toml_places

__all__ = ["Layer", "merge", "read_json", "read_layer", "read_text"]

_MOST = 4 << 20


class Layer(NamedTuple):
    """One file: a `fulcrum.toml` as `raw`, or a client's JSON as `document` with its servers under `key`."""

    raw: dict[str, Any]
    places: Places
    folder: Path
    document: Mapping[str, Any] | None = None
    key: str = ""


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], Places]:
    """The `raw` of all: lists follow one another, tables are united. Raises `Invalid` for two values of one key."""
    raw: dict[str, Any] = {}
    places = Places("settings")
    for layer in layers:
        shifts = {name: len(value) for name, value in raw.items() if isinstance(value, list)}
        for key, value in layer.raw.items():
            _unite(raw, (key,), value, places, layer.places)
        places.adopt(layer.places, shifts, layer.folder)
    return raw, places


def _unite(into: dict[str, Any], path: tuple[str, ...], value: Any, known: Places, new: Places) -> None:
    key = path[-1]
    if key not in into:
        into[key] = dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
    elif isinstance(value, dict) and isinstance(into[key], dict):
        for inner, part in value.items():
            _unite(into[key], (*path, inner), part, known, new)
    elif isinstance(value, list) and isinstance(into[key], list) and len(path) == 1:
        into[key] = [*into[key], *value]
    elif into[key] != value:
        raise Invalid(f'{new.at(path)}: "{".".join(path)}" says something else than {known.at(path)}; keep one of them')


def read_layer(config: Path) -> Layer:
    """One file. Raises `Invalid`."""
    source = str(config)
    text = read_text(config, source)
    if config.suffix == ".toml" or (config.suffix != ".json" and not text.lstrip().startswith(("{", "/"))):
        try:
            return Layer(tomllib.loads(text), toml_places(text, source), config.parent)
        except tomllib.TOMLDecodeError as exc:
            raise Invalid(_toml_fault(exc, text, source)) from None
        except RecursionError:
            raise Invalid(f"{source}: nested too deeply; write it flatter") from None
    document = read_json(text, source)
    places = json_places(plain_json(text), source)
    for key in ("mcpServers", "servers"):
        if key in document:
            return Layer({}, places, config.parent, document, key)
    inner = document.get("mcp")
    if isinstance(inner, Mapping) and "servers" in inner:
        raise Invalid(f'{places.at(("mcp",))}: put the object under "mcp" into a file of its own and name that')
    raise Invalid(
        f'{source}: no "mcpServers" (or "servers") in it; name a client\'s MCP configuration or a fulcrum.toml'
    )


def read_text(config: Path, source: str) -> str:
    """UTF-8 text of a bounded size. Raises `Invalid`."""
    try:
        with config.open("rb") as handle:
            content = handle.read(_MOST + 1)
    except FileNotFoundError:
        raise Invalid(f"{source}: no such file; check the path given with --config") from None
    except OSError as exc:
        raise Invalid(f"{source}: cannot be read ({exc.strerror}); check the path and its permissions") from exc
    if len(content) > _MOST:
        raise Invalid(f"{source}: larger than {_MOST >> 20} MiB; a configuration is not that large")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Invalid(f"{source}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _toml_fault(fault: tomllib.TOMLDecodeError, text: str, source: str) -> str:
    said = str(fault)
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z", said)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    said = said[: place.start()] if place else said
    return f"{source}:{line}: not valid TOML: {said[:1].lower()}{said[1:]}; correct this line"


def read_json(text: str, source: str) -> dict[str, Any]:
    """A JSON object, comments and trailing commas allowed. Raises `Invalid`."""

    def constant(word: str) -> Any:
        raise Invalid(f"{source}: {word} is not JSON; write a number")

    try:
        document = json.loads(plain_json(text), parse_constant=constant)
    except json.JSONDecodeError as exc:
        raise Invalid(f"{source}:{exc.lineno}: not valid JSON: {exc.msg.lower()}; correct this line") from None
    except (RecursionError, ValueError):
        raise Invalid(f"{source}: nested too deeply, or a number is too long; correct it") from None
    if not isinstance(document, dict):
        raise Invalid(f"{source}:1: must be a JSON object")
    return document
