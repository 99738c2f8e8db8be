"""`fulcrum up`: the gateway in front of the servers of a configuration, on this machine, with nothing else running."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from fulcrum_mcp import __version__, logs
from fulcrum_mcp.composition.control import admin_key, client_key
from fulcrum_mcp.composition.server import Server, open_server
from fulcrum_mcp.settings import Settings, load

__all__ = ["app"]

app = typer.Typer(add_completion=False)

_PATIENCE = 20.0
"""Seconds to wait for upstreams before saying which are still silent; the gateway serves meanwhile."""


@app.command()
def up(
    config: Annotated[Path | None, typer.Option(help="fulcrum.toml, or any JSON with mcpServers.")] = None,
    policies: Annotated[str | None, typer.Option(help="A folder of Rego policies, or a starter's name.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder; default $XDG_DATA_HOME/fulcrum.")] = None,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:8080, or PORT.")] = None,
    grpc: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:50051.")] = None,
    anonymous: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Serve requests without a key under this role; loopback only.")
    ] = None,
    log: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Start the gateway in front of your MCP servers."""
    logs.configure(log)
    overrides = {
        "data": data, "policies": policies, "http": http, "grpc": grpc, "anonymous": anonymous,
    }  # fmt: skip
    settings = load(config, environ=os.environ, overrides=overrides)
    for warning in settings.warnings:
        typer.echo(f"warning: {warning}", err=True)
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    server = await open_server(settings)
    admin = admin_key(server.control, settings)
    client = client_key(server.control, settings)
    server.plane.snapshots.on_change = typer.echo
    greeting: list[asyncio.Task[None]] = []

    def ready(started: Server) -> None:
        url = f"http://{started.address}"
        key = None if client is None else client.text
        greeting.append(asyncio.get_running_loop().create_task(_greet(started, url, key)))
        if admin is not None and admin.made and sys.stdout.isatty():
            typer.echo(f"admin key {admin.text}  (kept in {admin.path})")

    await server.run(ready)


async def _greet(server: Server, url: str, key: str | None) -> None:
    settings = server.settings
    typer.echo(f"fulcrum {__version__} at {url}")
    catalogs = [exchange.catalog for exchange in server.plane.hub.exchanges.values()]
    if catalogs:
        await asyncio.wait([asyncio.ensure_future(catalog.refresh()) for catalog in catalogs], timeout=_PATIENCE)
    tools = sum(len(catalog.tools) for catalog in catalogs)
    typer.echo(f"  {_count(len(catalogs), 'upstream')}, {_count(tools, 'tool')}")
    for catalog in catalogs:
        if catalog.failure is not None:
            typer.echo(f"  ✘ {catalog.failure}")
        elif not catalog.ready:
            typer.echo(f"  … upstream {catalog.name} has not answered yet; it is asked again when it is used")
        else:
            typer.echo(f"  ✔ {catalog.name}: {_count(len(catalog.tools), 'tool')}")
    if server.plane.snapshots.observing:
        typer.echo("  no policies: observing (everything is allowed and recorded)")
    else:
        typer.echo(f"  policies: {', '.join(server.plane.holder.current.engine.info.names)}")
    if server.plane.recovered:
        typer.echo(f"  {_count(server.plane.recovered, 'call')} of a process that died: recorded as outcome_unknown")
    typer.echo(f"  audit trail in {settings.data}")
    _snippet(url, key, settings)


def _snippet(url: str, key: str | None, settings: Settings) -> None:
    """How to point a client here. The key is shown on a terminal only."""
    shown = key if key is not None and sys.stdout.isatty() else f"$(cat {settings.data / 'client.key'})"
    if settings.anonymous is not None:
        typer.echo(f"\nPoint any MCP client at {url}/mcp (no key needed here), or at {url}/servers/NAME/mcp.")
        return
    entry = {"mcpServers": {"fulcrum": {"type": "http", "url": f"{url}/mcp"}}}
    entry["mcpServers"]["fulcrum"]["headers"] = {"Authorization": f"Bearer {shown}"}  # type: ignore[assignment]
    typer.echo("\nClaude Code:")
    typer.echo(f'  claude mcp add --transport http fulcrum {url}/mcp --header "Authorization: Bearer {shown}"')
    typer.echo("Cursor (.cursor/mcp.json), Claude Desktop and others (VS Code: .vscode/mcp.json, with `servers`):")
    typer.echo("  " + json.dumps(entry))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
