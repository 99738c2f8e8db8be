"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated

import typer

from fulcrum_mcp.errors import Invalid

__all__ = [
    "ConfigOption",
    "DataOption",
    "JsonOption",
    "LogOption",
    "PoliciesOption",
    "UrlOption",
    "WorkersOption",
    "seconds",
]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="A running gateway; FULCRUM_API_KEY (or _ADMIN_KEY) is the key."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data folder; default $XDG_DATA_HOME/fulcrum."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A fulcrum.toml, or a client's JSON with mcpServers."),
]
PoliciesOption = Annotated[
    str | None,
    typer.Option("--policies", metavar="DIR", help="A folder of Rego policies, or a starter's name."),
]
LogOption = Annotated[
    str, typer.Option("--log", metavar="LEVEL", help="debug, info, warning or error; to standard error.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=64, help="Serve with N processes, replaced when they end."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

_SPAN = re.compile(r"(\d{1,9})([smhdw]?)\Z")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds(text: str, option: str) -> int:
    """`90d`, `12h`, `3600` in seconds. Raises `Invalid`."""
    found = _SPAN.match(text)
    if found is None:
        raise Invalid(f'{option}: "{text}" is not a span of time; write for example 90d, 12h or 30m.')
    return int(found[1]) * _UNITS[found[2]]
