"""`fulcrum up`: the gateway in front of the servers of a configuration, on this machine, with nothing else running."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from fulcrum_mcp import __version__, logs
from fulcrum_mcp.cli.greeting import count, say_change, say_clients, watch
from fulcrum_mcp.cli.options import DataOption, LogOption, PoliciesOption
from fulcrum_mcp.cli.output import note, say
from fulcrum_mcp.composition.control import FirstKey, admin_key, client_key
from fulcrum_mcp.composition.policy import remember_policies
from fulcrum_mcp.composition.server import Server, open_server
from fulcrum_mcp.settings import Settings, load

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_TOLD = ("catalog not refreshed", "policies refused, the old ones stay", "policies live")
"""Log events that a terminal shows in words of its own."""


@app.command()
def up(
    config: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="fulcrum.toml, or any JSON with mcpServers; several add up."),
    ] = None,
    policies: PoliciesOption = None,
    data: DataOption = None,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:8080, or PORT.")] = None,
    grpc: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:50051.")] = None,
    anonymous: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Serve requests without a key under this role; loopback only.")
    ] = None,
    log: LogOption = "warning",
) -> None:
    """Start the gateway in front of your MCP servers; Ctrl-C ends it.

    What is in fulcrum.toml, and the environment variables for it: docs/reference/configuration.md.
    """
    logs.configure(log, told=_TOLD if sys.stdout.isatty() and sys.stderr.isatty() else ())
    overrides = {
        "data": data, "policies": policies, "http": http, "grpc": grpc, "anonymous": anonymous,
    }  # fmt: skip
    settings = load(config, environ=os.environ, overrides=overrides)
    for warning in settings.warnings:
        note(f"warning: {warning}")
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    server = await open_server(settings)
    remember_policies(settings, server.plane.snapshots.where)
    admin = admin_key(server.control, settings)
    client = client_key(server.control, settings)
    server.plane.snapshots.on_change = say_change
    telling: list[asyncio.Task[None]] = []

    def ready(started: Server) -> None:
        say(f"fulcrum {__version__} at http://{started.address}\n")
        catalogs = [exchange.catalog for exchange in started.plane.hub.exchanges.values()]
        told = watch(catalogs, lambda: _summary(started, admin, client))
        telling.append(asyncio.get_running_loop().create_task(told))

    try:
        await server.run(ready)
    finally:
        for task in telling:
            task.cancel()


def _summary(server: Server, admin: FirstKey | None, client: FirstKey | None) -> None:
    settings, plane = server.settings, server.plane
    catalogs = [exchange.catalog for exchange in plane.hub.exchanges.values()]
    tools = sum(len(catalog.tools) for catalog in catalogs)
    failed = sum(catalog.failure is not None for catalog in catalogs)
    but = f" ({failed} of them failed; the rest works)" if failed else ""
    say(f"  {count(len(catalogs), 'upstream')}{but}, {count(tools, 'tool')}")
    if not catalogs:
        say("  nothing to govern yet: name a fulcrum.toml, or a client's JSON with mcpServers, with --config")
    if plane.snapshots.observing:
        say("  no policies: observing (everything is allowed and recorded); --policies DIR brings rules")
    else:
        say(f"  policies: {', '.join(plane.holder.current.engine.info.names)}")
    if settings.budgets:
        say(f"  {count(len(settings.budgets), 'budget')} from the configuration")
    if plane.stores.recovered:
        say(f"  {count(plane.stores.recovered, 'call')} of a process that died: recorded as outcome_unknown")
    say(f"  audit trail in {settings.data}; fulcrum audit tail follows it")
    if admin is not None and admin.made and admin.path is not None:
        shown = f": {admin.text}" if sys.stdout.isatty() else ""
        say(f"  the admin key, made just now, is in {admin.path}{shown}")
    key = None if client is None else client.text
    url = f"http://{server.address}"
    say_clients(url, key, (settings.data / "client.key").resolve(), anonymous=settings.anonymous is not None)
