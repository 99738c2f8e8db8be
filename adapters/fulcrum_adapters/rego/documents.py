"""Reading JSON and YAML that people wrote: strictly, so that what they see is what policies get."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fulcrum_mcp.errors import Invalid

__all__ = ["merge", "read_document", "read_text"]


class _StrictLoader(yaml.SafeLoader):
    """YAML without what JSON cannot say: dates, aliases (a small file can make a huge document), double keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as yaml declares it
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return {str(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


def _mapping(loader: _StrictLoader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "not a mapping", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_text(path: Path, limit: int) -> str:
    """A file's text. Raises `Invalid` when it is larger than `limit` bytes, no UTF-8, or cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as exc:
        raise Invalid(f"{path}: cannot be read: {exc.strerror}") from exc
    if len(raw) > limit:
        raise Invalid(f"{path}: larger than {limit} bytes; split it")
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise Invalid(f"{path}: not UTF-8 text at byte {exc.start}; save it as UTF-8") from exc


def read_document(path: Path, limit: int) -> Any:
    """The value of a JSON or YAML file. Raises `Invalid` with the place of the fault."""
    text = read_text(path, limit)
    try:
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise Invalid(f"{path}: aliases (*{event.anchor}) are not taken; write the value out")
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - derived from SafeLoader
    except json.JSONDecodeError as exc:
        raise Invalid(f"{path}:{exc.lineno}:{exc.colno}: {exc.msg}; correct the JSON") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise Invalid(f"{place}: {exc.problem}; correct the YAML") from exc
    except (ValueError, RecursionError, yaml.YAMLError) as exc:
        raise Invalid(f"{path}: {exc}; correct it") from exc


def merge(into: dict[str, Any], document: Mapping[str, Any], path: Path, where: str = "") -> None:
    """Add a data document; objects are merged. Raises `Invalid` when two files say different things at one place."""
    for key, value in document.items():
        name = f"{where}.{key}" if where else key
        if key not in into:
            into[key] = value
        elif isinstance(into[key], dict) and isinstance(value, Mapping):
            merge(into[key], value, path, name)
        elif into[key] != value:
            raise Invalid(f"{path}: data.{name} is already set by another file; keep it in one of them")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
