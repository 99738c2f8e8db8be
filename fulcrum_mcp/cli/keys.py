"""`fulcrum keys`."""

from typing import Annotated, Any

import typer

from fulcrum_mcp.cli.options import DataOption, JsonOption, UrlOption, seconds
from fulcrum_mcp.cli.output import note, say, say_json, table
from fulcrum_mcp.cli.target import open_target
from fulcrum_mcp.core.credential import SCOPES

__all__ = ["app"]

app = typer.Typer(
    help="Make, list and revoke API keys.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
_SCOPE_HELP = "What it may do; can be given several times. One of " + ", ".join(SCOPES) + "."


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    agent: Annotated[str | None, typer.Option(help="The agent that uses it; default: the name.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="A label for policies; can be given several times.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help=_SCOPE_HELP)] = None,
    expires: Annotated[str | None, typer.Option(metavar="SPAN", help="How long it lives, such as 90d.")] = None,
    require_envelope: Annotated[
        bool, typer.Option("--require-envelope", help="Deny calls outside an envelope.")
    ] = False,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its text is printed this once, alone on standard output."""
    fields: dict[str, Any] = {
        "name": name,
        "roles": role or [],
        "scopes": scope or ["tool:call"],
        "require_envelope": require_envelope,
    }
    if agent is not None:
        fields["agent"] = agent
    if expires is not None:
        fields["expires_in_seconds"] = seconds(expires, "--expires")
    with open_target(url, data, must_exist=False) as target:
        made = target.create_key(fields)
    if as_json:
        say_json(made)
        return
    key = made["key"]
    note(f"key {key['id']} for agent {key['agent']}, scopes {' '.join(key['scopes'])}; it is not shown again:")
    say(made["key_secret"])


@app.command("list")
def list_(url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List keys, newest first."""
    with open_target(url, data) as target:
        keys = target.list_keys()
    if as_json:
        say_json({"keys": list(keys)})
        return
    rows = [
        (key["id"], key["name"], key["agent"], ",".join(key["roles"]) or "-", " ".join(key["scopes"]), _state(key))
        for key in keys
    ]
    for line in table(rows, ("ID", "NAME", "AGENT", "ROLES", "SCOPES", "STATE")):
        say(line)
    if not rows:
        note("no keys yet; fulcrum keys create NAME makes one")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As fulcrum keys list shows it.")],
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key; gateways refuse it within a second, without NATS within 5."""
    with open_target(url, data) as target:
        key = target.revoke_key(key_id)
    if as_json:
        say_json({"key": key})
    else:
        say(f"key {key['id']} ({key['name']}) is revoked since {key['revoked_at']}")


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"]:
        return f"revoked {key['revoked_at']}"
    return f"until {key['expires_at']}" if key["expires_at"] else "valid"
