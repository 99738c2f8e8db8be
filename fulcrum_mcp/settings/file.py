"""The shape of `fulcrum.toml`, and what pydantic finds wrong with it said as a person would."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, StrictBool, StrictStr, ValidationError

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.model import (
    AuditSettings,
    Count,
    Frozen,
    LimitsSettings,
    NatsSettings,
    OAuthSettings,
    PostgresSettings,
    RedisSettings,
    Seconds,
    Strings,
)
from fulcrum_mcp.settings.place import Places

__all__ = ["FileSettings", "PolicyEntry", "ServerEntry", "TelemetryEntry", "guess", "validate"]


class ServerEntry(Frozen):
    """`[[server]]`."""

    name: StrictStr
    command: Strings | None = None
    url: StrictStr | None = None
    headers: Mapping[StrictStr, StrictStr] = {}
    env: Mapping[StrictStr, StrictStr] = {}
    cwd: StrictStr | None = None
    labels: Mapping[StrictStr, StrictStr] = {}
    timeout: Seconds = 300.0
    client: Literal["pool", "aiohttp"] = "pool"
    idle_timeout: Seconds = 600.0
    max_processes: Count = 64
    disabled: StrictBool = False


class PolicyEntry(Frozen):
    """`[policy]`."""

    engine: Literal["rego", "opa"] = "rego"
    opa_url: StrictStr | None = None
    timeout: Seconds = 1.0
    max_input: Count = 256 * 1024
    data: Mapping[str, Any] | StrictStr = Field(default_factory=dict[str, Any])


class TelemetryEntry(Frozen):
    """`[telemetry]`."""

    otlp_endpoint: StrictStr | None = None
    traces: Annotated[float, Field(ge=0, le=1)] = 1.0
    metrics: StrictStr | None = None


class FileSettings(Frozen):
    """The whole file."""

    data: StrictStr | None = None
    policies: StrictStr | None = None
    http: StrictStr | None = None
    grpc: StrictStr | None = None
    anonymous: StrictStr | None = None
    workers: Annotated[int, Field(strict=True, ge=1, le=64)] | None = None
    watchdog_seconds: Seconds = 2.0
    deny_as: Literal["result", "error"] = "result"
    allowed_hosts: Strings = ()
    allowed_origins: Strings = ()
    server: tuple[ServerEntry, ...] = ()
    budget: tuple[Mapping[str, Any], ...] = ()
    rate: tuple[Mapping[str, Any], ...] = ()
    audit: AuditSettings = AuditSettings()
    policy: PolicyEntry = PolicyEntry()
    limits: LimitsSettings = LimitsSettings()
    oauth: OAuthSettings | None = None
    postgres: PostgresSettings | None = None
    redis: RedisSettings | None = None
    nats: NatsSettings | None = None
    telemetry: TelemetryEntry = TelemetryEntry()


def guess(word: str, known: Sequence[str]) -> str:
    """` (did you mean "x"?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else f"; known: {', '.join(sorted(known))}"


def validate(raw: Mapping[str, Any], places: Places) -> FileSettings:
    """Check the shape. Raises `Invalid`: one line for each fault, each with its place and remedy."""
    try:
        return FileSettings.model_validate(raw)
    except ValidationError as exc:
        raise Invalid("\n".join(_faults(exc, raw, places))) from None


def _faults(error: ValidationError, raw: Mapping[str, Any], places: Places) -> Iterator[str]:
    seen: set[str] = set()
    for fault in error.errors(include_input=False, include_url=False):
        path = _path(fault["loc"], raw)
        where, key = _subject(path, raw)
        kind = fault["type"]
        if kind == "extra_forbidden":
            said = f'unknown key "{key}"{guess(key, _known(path))}'
        elif kind == "missing":
            said = f'key "{key}" is missing; add {key} = ...{_variable(path)}'
        else:
            said = f"{key}: {_said(fault['msg'])}"
        line = f"{places.at(path)}: {where}{said}"
        if line.rpartition(":")[0] not in seen:
            seen.add(line.rpartition(":")[0])
            yield line


def _variable(path: Sequence[str | int]) -> str:
    """Addresses hold passwords, and come from the environment mostly."""
    addressed = path[1:] == ("url",) and path[0] in {"postgres", "redis", "nats"}
    return f", or set FULCRUM_{str(path[0]).upper()}_URL" if addressed else ""


def _said(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return f"must be {text}" if message.startswith("Input should be ") else text[:1].lower() + text[1:]


def _path(location: Sequence[str | int], raw: Any) -> tuple[str | int, ...]:
    """The part of pydantic's location that is a path into the document: names of union members are not."""
    path: list[str | int] = []
    here: Any = raw
    for position, part in enumerate(location):
        if isinstance(here, Mapping) and (part in here or position == len(location) - 1 or not path):
            path.append(part)
            here = here.get(part)
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int):
            path.append(part)
            here = here[part] if part < len(here) else None
        else:
            break
    return tuple(path)


def _subject(path: Sequence[str | int], raw: Mapping[str, Any]) -> tuple[str, str]:
    """What a fault is about (`budget "daily": `, `[audit] `) and the key, as people write it."""
    first = str(path[0]) if path else ""
    if len(path) > 1 and isinstance(path[1], int):
        entry = raw[first][path[1]] if isinstance(raw[first], list) else None
        name = entry.get("name") if isinstance(entry, Mapping) else None
        shown = f'"{name}"' if isinstance(name, str) else f"{path[1] + 1}"
        return f"{first} {shown}: ", ".".join(map(str, path[2:])) or first
    if len(path) > 1:
        return f"[{first}] ", ".".join(map(str, path[1:]))
    return "", first


def _known(path: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = FileSettings
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
