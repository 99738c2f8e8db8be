"""`fulcrum db`."""

import os
from typing import Annotated

import typer

from fulcrum_mcp.cli.options import ConfigOption, JsonOption, seconds
from fulcrum_mcp.cli.output import note, say, say_json
from fulcrum_mcp.composition.database import database_state, postgres_config, upgrade_database
from fulcrum_mcp.settings import Settings, load

__all__ = ["app"]

app = typer.Typer(
    help="The Postgres database of an installation with several gateways.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
_ANSWER_IS_NO = 1


@app.command(short_help="Bring the schema up to date, or say why not.")
def upgrade(
    config: ConfigOption = None,
    patience: Annotated[
        str, typer.Option(metavar="SPAN", help="How long one step, or another process that upgrades, may take.")
    ] = "10m",
    as_json: JsonOption = False,
) -> None:
    """Bring the schema up to date: forward only, all of it or nothing; safe while others do the same."""
    settings = _settings(config)
    place = postgres_config(settings).place
    before, after = upgrade_database(
        settings, lambda what: note(f"{place}: {what}"), patience=seconds(patience, "--patience")
    )
    if as_json:
        say_json({"database": place, "before": before.found, "after": after.found, "server": after.server})
    elif before.current:
        say(f"{place}: the schema is {after.found}, as it should be; nothing was changed")
    else:
        say(f"{place}: the schema is {after.found} now, it was {before.found or 'empty'}")


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Say whether the schema is up to date; exit code 1 if it is not."""
    settings = _settings(config)
    found = database_state(settings)
    place = postgres_config(settings).place
    if as_json:
        document = {"schema": found.found, "latest": found.latest, "current": found.current, "server": found.server}
        say_json({"database": place, **document})
    else:
        say(f"{place}: schema {found.found or 'none'}, latest {found.latest}, PostgreSQL {found.server}")
    if not found.current:
        note("fulcrum db upgrade brings it up to date")
        raise typer.Exit(_ANSWER_IS_NO)


@app.command(short_help="Take over a new FULCRUM_AUDIT_MAC_KEY.")
def rekey(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Take the FULCRUM_AUDIT_MAC_KEY that is set here for the installation's from now on.

    Servers and processors with another one do not start. Stop all of them first, as docs/CREDENTIALS.md says.
    """
    settings = _settings(config)
    place = postgres_config(settings).place
    from fulcrum_mcp.composition.signing import rekey_installation  # noqa: PLC0415 - loads all that servers need

    changed = rekey_installation(settings)
    if as_json:
        say_json({"database": place, "changed": changed})
    else:
        say(f"{place}: {'the installation has this key now' if changed else 'it had this key; nothing was changed'}")


def _settings(config: ConfigOption) -> Settings:
    return load(config, environ=os.environ)
