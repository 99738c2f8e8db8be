"""`fulcrum up`: the gateway in front of the servers of a configuration, on this machine, with nothing else running."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fulcrum_mcp import logs
from fulcrum_mcp.cli.options import DataOption, LogOption, PoliciesOption, WorkersOption
from fulcrum_mcp.cli.output import note
from fulcrum_mcp.composition.worker import inherited
from fulcrum_mcp.settings import load

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_TOLD = ("catalog not refreshed", "policies refused, the old ones stay", "policies live")
"""Log events that a terminal shows in words of its own."""


@app.command()
def up(
    context: typer.Context,
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
    workers: WorkersOption = None,
    log: LogOption = "warning",
) -> None:
    """Start the gateway in front of your MCP servers; Ctrl-C ends it.

    What is in fulcrum.toml, and the environment variables for it: docs/reference/configuration.md.
    """
    worker = inherited(os.environ)
    terminal = sys.stdout.isatty() and sys.stderr.isatty()
    logs.configure(log, told=_TOLD if terminal else (), worker=None if worker is None else worker.seat.number)
    overrides = {
        "data": data, "policies": policies, "http": http, "grpc": grpc, "anonymous": anonymous, "workers": workers,
    }  # fmt: skip
    settings = load(config, environ=os.environ, overrides=overrides)
    if worker is None:
        for warning in settings.warnings:
            note(f"warning: {warning}")
    if settings.workers is not None and worker is None:
        from fulcrum_mcp.composition.supervisor import supervise, worker_command  # noqa: PLC0415 - one of two ways

        raise SystemExit(supervise(worker_command(["up", *context.obj]), settings.workers, settings))
    from fulcrum_mcp.cli.serving import serve  # noqa: PLC0415 - dear, and the supervisor serves nothing

    serve(settings, worker)
