"""`fulcrum server`: one gateway of an installation with several, on Postgres, Redis or Valkey, and NATS."""

import os
from typing import Annotated, Literal

import typer

from fulcrum_mcp import logs
from fulcrum_mcp.cli.options import ConfigOption, DataOption, LogOption, PoliciesOption, WorkersOption
from fulcrum_mcp.cli.output import note
from fulcrum_mcp.composition.worker import inherited
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings, load

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_PLANES: dict[str, Literal["both", "data", "control"]] = {"both": "both", "data": "data", "control": "control"}


@app.command()
def server(
    context: typer.Context,
    config: ConfigOption = None,
    policies: PoliciesOption = None,
    data: DataOption = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:8080; 0.0.0.0 and PORT where that is set."),
    ] = None,
    grpc: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Default 127.0.0.1:50051.")] = None,
    planes: Annotated[
        str, typer.Option(metavar="PLANES", help="both; data: MCP only; control: the API only, without upstreams.")
    ] = "both",
    workers: WorkersOption = None,
    log: LogOption = "info",
) -> None:
    """Serve as one of any number of gateways that share policies, budgets and one audit trail; Ctrl-C ends it.

    It needs FULCRUM_POSTGRES_URL, FULCRUM_REDIS_URL, FULCRUM_NATS_URL, FULCRUM_STATE_KEYS and FULCRUM_AUDIT_MAC_KEY
    (each also as NAME_FILE; addresses in fulcrum.toml too), and a `fulcrum processor` beside it. Without policies
    every call is denied: name a folder, or publish them (fulcrum policy publish). docs/DEPLOYMENT_GUIDE.md tells all.
    """
    served = _PLANES.get(planes)
    if served is None:
        raise Invalid(f'--planes: "{planes}" is not one of {", ".join(_PLANES)}.')
    worker = inherited(os.environ)
    logs.configure(log, worker=None if worker is None else worker.seat.number)
    overrides = {"data": data, "policies": policies, "http": http, "grpc": grpc, "workers": workers}
    settings = load(
        config,
        environ=os.environ,
        overrides=overrides,
        port_host="0.0.0.0",  # noqa: S104 - where a platform says PORT, it is the one that comes
    )
    _check(settings)
    if worker is None:
        for warning in settings.warnings:
            note(f"warning: {warning}")
    if settings.workers is not None and worker is None:
        from fulcrum_mcp.composition.supervisor import supervise, worker_command  # noqa: PLC0415 - one of two ways

        raise SystemExit(supervise(worker_command(["server", *context.obj]), settings.workers, settings))
    from fulcrum_mcp.cli.serving import serve_installation  # noqa: PLC0415 - dear, and the supervisor serves nothing

    serve_installation(settings, worker, served)


def _check(settings: Settings) -> None:
    """Everything that several gateways share has to be said. Raises `Invalid`, all that is missing at once."""
    needed = {
        "FULCRUM_POSTGRES_URL": (settings.postgres, "the store, for example postgresql://fulcrum@db/fulcrum_metrics"),
        "FULCRUM_REDIS_URL": (settings.redis, "the ledger, for example redis://redis:6379/0"),
        "FULCRUM_NATS_URL": (settings.nats, "the streams, for example nats://nats:4222"),
        "FULCRUM_STATE_KEYS": (settings.state_keys, "seals what clients carry; the output of `openssl rand -hex 32`"),
        "FULCRUM_AUDIT_MAC_KEY": (settings.audit_mac_key, "the output of `openssl rand -hex 32`"),
    }
    missing = [f"{name} is not set: {what}" for name, (given, what) in needed.items() if not given]
    if missing:
        raise Invalid("\n".join([*missing, "one machine needs none of them: fulcrum up does it by itself"]))
