"""`fulcrum processor`: takes records from NATS into Postgres, checks every chain and signs checkpoints."""

import os
from typing import Annotated

import typer
import uvloop

from fulcrum_mcp import __version__, logs
from fulcrum_mcp.cli.options import ConfigOption, DataOption, LogOption
from fulcrum_mcp.cli.output import note, say
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Bind, Settings, load

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_BESIDE = Bind(host="127.0.0.1", port=8081)
"""Where it says how it is when nobody says where: beside a server on the same machine."""


@app.command()
def processor(
    config: ConfigOption = None,
    data: DataOption = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="For /healthz and /readyz; default 127.0.0.1:8081; 0.0.0.0 and PORT where that is set.",
        ),
    ] = None,
    log: LogOption = "info",
) -> None:
    """Store, check and sign what the gateways record; Ctrl-C ends it. Any number may run: one of them signs.

    It needs Postgres (FULCRUM_POSTGRES_URL), NATS (FULCRUM_NATS_URL) and the key that checkpoints are signed with
    (FULCRUM_AUDIT_SIGNING_KEY, the same for all; without it one is made in the data folder, with a warning, and it is
    refused where another key has signed); each also as NAME_FILE, addresses also in fulcrum.toml.
    """
    logs.configure(log)
    settings = load(
        config,
        environ=os.environ,
        overrides={"data": data, "http": http},
        port_host="0.0.0.0",  # noqa: S104 - where a platform says PORT, it is the one that comes
    )
    for warning in settings.warnings:
        note(f"warning: {warning}")
    _check(settings)
    from fulcrum_mcp.composition.event_processor import ProcessorServer  # noqa: PLC0415 - dear; --help needs none of it

    async def run() -> None:
        server = ProcessorServer(
            settings, _BESIDE if settings.http == Settings.model_fields["http"].default else settings.http
        )
        await server.run(lambda started: say(f"fulcrum processor {__version__} at http://{started.address}"))

    uvloop.run(run())


def _check(settings: Settings) -> None:
    """All that is missing, at once."""
    needed = {"postgres": settings.postgres, "nats": settings.nats}
    missing = [name for name, given in needed.items() if given is None]
    if missing:
        variables = " and ".join(f"FULCRUM_{name.upper()}_URL" for name in missing)
        tables = " and ".join(f"[{name}]" for name in missing)
        raise Invalid(
            f"no {' and no '.join(missing)} is configured; set {variables} (or the same with _FILE), "
            f"or url in {tables} of fulcrum.toml. One machine needs neither: fulcrum up does this by itself."
        )
