"""`fulcrum wrap -- COMMAND`: put in front of one stdio server in a client's configuration."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from fulcrum_mcp import logs
from fulcrum_mcp.cli.options import DataOption, LogOption, PoliciesOption
from fulcrum_mcp.cli.output import note
from fulcrum_mcp.composition.wrap import wrap_settings, wrap_stdio
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.settings import load

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _server_name(command: list[str]) -> str:
    """A name for the server: the last word of its command that looks like a program or package."""
    words = [word for word in command if not word.startswith("-")]
    known = [word for word in words if re.search(r"mcp|server", word)] or words
    name = re.sub(r"[^a-z0-9]+", "-", Path(known[0]).stem.lower()).strip("-")
    return re.sub(r"^(server-)?mcp-(server-)?|^server-", "", name)[:32].strip("-") or "server"


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def wrap(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGS]...", help="The server to govern.")],
    policies: PoliciesOption = None,
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="The role under which this client calls.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The server's name in policies and records.")] = None,
    data: DataOption = None,
    config: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="fulcrum.toml, for budgets and other settings.")
    ] = None,
    log: LogOption = "warning",
) -> None:
    """Govern one stdio MCP server; nothing else needs to run."""
    logs.configure(log)
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]}: no such program in PATH; install it, or write its whole path")
    if sys.stdin.isatty():
        note("fulcrum wrap: reading MCP from this terminal; it is meant to be started by a client: see the README")
    settings = load(config, environ=os.environ, overrides={"data": data, "policies": policies})
    uvloop.run(wrap_stdio(wrap_settings(settings, name or _server_name(command), tuple(command)), role))
