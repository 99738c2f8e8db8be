"""Serving, as `fulcrum up` does it: open, greet, tell what changes. Loaded by the process that serves only."""

import asyncio
import sys

import uvloop

from fulcrum_mcp import __version__
from fulcrum_mcp.cli.greeting import count, say_change, say_clients, say_governed, watch
from fulcrum_mcp.cli.output import say
from fulcrum_mcp.composition.control import FirstKey, admin_key, client_key
from fulcrum_mcp.composition.policy import remember_policies
from fulcrum_mcp.composition.server import Planes, Server, open_server
from fulcrum_mcp.composition.worker import Worker
from fulcrum_mcp.settings import Settings

__all__ = ["serve", "serve_installation"]

_PLANES = {"both": "data and control plane", "data": "data plane", "control": "control plane"}


def serve(settings: Settings, worker: Worker | None = None) -> None:
    """Serve until SIGINT or SIGTERM, alone or as one of several workers; the first of them speaks."""
    uvloop.run(_serve(settings, worker))


def serve_installation(settings: Settings, worker: Worker | None = None, planes: Planes = "both") -> None:
    """As `serve`, on the parts that several gateways share."""
    uvloop.run(_serve_installation(settings, worker, planes))


async def _serve_installation(settings: Settings, worker: Worker | None, planes: Planes) -> None:
    from fulcrum_mcp.composition.installation import open_installation  # noqa: PLC0415 - what `up` does not load

    installation = await open_installation(settings, signs=planes != "data")
    server = await open_server(settings, worker=worker, backing=installation.backing(), planes=planes)
    if settings.admin_key is not None:
        admin_key(server.control, settings)

    def ready(started: Server) -> None:
        if worker is None or (worker.speaks and not worker.again):
            say(f"fulcrum server {__version__} at http://{started.address} ({_PLANES[planes]})")
            if planes != "control":
                plane = started.plane
                policies = plane.holder.current.engine.info.names if plane.snapshots.judging else None
                say_governed(tuple(plane.hub.exchanges), policies, len(settings.budgets), plane.stores.recovered)

    await server.run(ready)
    installation.check_ended()


async def _serve(settings: Settings, worker: Worker | None) -> None:
    server = await open_server(settings, worker=worker)
    remember_policies(settings, server.plane.snapshots.where)
    admin = admin_key(server.control, settings)
    client = client_key(server.control, settings)
    speaks = worker is None or worker.speaks
    if speaks:
        server.plane.snapshots.on_change = say_change
    telling: list[asyncio.Task[None]] = []

    def ready(started: Server) -> None:
        if not speaks:
            return
        catalogs = [exchange.catalog for exchange in started.plane.hub.exchanges.values()]
        if worker is not None and worker.again:
            told = watch(catalogs, None)
        else:
            say(f"fulcrum {__version__} at http://{started.address}\n")
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
