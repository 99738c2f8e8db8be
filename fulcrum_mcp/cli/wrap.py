"""`fulcrum wrap -- COMMAND`: put in front of one stdio server in a client's configuration."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from fulcrum_mcp import logs
from fulcrum_mcp.composition.wrap import wrap_settings, wrap_stdio
from fulcrum_mcp.settings import load

__all__ = ["app"]

app = typer.Typer(add_completion=False)


def _server_name(command: list[str]) -> str:
    """A name for the server: the last word of its command that looks like a program or package."""
    words = [word for word in command if not word.startswith("-")]
    known = [word for word in words if re.search(r"mcp|server", word)] or words
    name = re.sub(r"[^a-z0-9]+", "-", Path(known[0]).stem.lower()).strip("-")
    return re.sub(r"^(server-)?mcp-(server-)?|^server-", "", name)[:32].strip("-") or "server"


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def wrap(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGS]...", help="The server to govern.")],
    policies: Annotated[str | None, typer.Option(help="A folder of Rego policies, or a starter's name.")] = None,
    role: Annotated[str | None, typer.Option(help="The role under which this client calls.")] = None,
    name: Annotated[str | None, typer.Option(help="The server's name in policies and records.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder; default $XDG_DATA_HOME/fulcrum.")] = None,
    config: Annotated[Path | None, typer.Option(help="fulcrum.toml, for budgets and other settings.")] = None,
    log: Annotated[str, typer.Option(help="debug, info, warning or error; to standard error.")] = "warning",
) -> None:
    """Govern one stdio MCP server; nothing else needs to run."""
    logs.configure(log)
    settings = load(config, environ=os.environ, overrides={"data": data, "policies": policies})
    uvloop.run(wrap_stdio(wrap_settings(settings, name or _server_name(command), tuple(command)), role))
