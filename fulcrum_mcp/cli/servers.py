"""`fulcrum servers`."""

import os

import typer

from fulcrum_mcp.cli.options import ConfigOption, JsonOption, UrlOption
from fulcrum_mcp.cli.output import note, say, say_json, table
from fulcrum_mcp.cli.target import gateway_address
from fulcrum_mcp.errors import Invalid

__all__ = ["app"]

app = typer.Typer(
    help="The MCP servers behind the gateway.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.callback()
def servers() -> None:
    """The MCP servers behind the gateway."""


@app.command("list", short_help="What a configuration names, or a gateway has.")
def list_(config: ConfigOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List what a configuration names (or a running gateway has); starts nothing, shows no secret."""
    found = _remote(url) if config is None else None
    warnings: tuple[str, ...] = ()
    if found is None:
        from fulcrum_mcp.composition.control import server_views  # noqa: PLC0415 (not for --url)
        from fulcrum_mcp.control.servers import server_document  # noqa: PLC0415 (same)
        from fulcrum_mcp.settings import load  # noqa: PLC0415 (same)

        if config is None and not os.environ.get("FULCRUM_CONFIG"):
            raise Invalid(
                "--config is missing; name a fulcrum.toml or a client's JSON, or a running gateway with --url."
            )
        settings = load(config, environ=os.environ)
        found = [server_document(view) for view in server_views(settings.servers)]
        warnings = settings.warnings
    if as_json:
        say_json({"servers": found})
    else:
        rows = [(one["name"], one["transport"], one["target"], one["configured_at"]) for one in found]
        for line in table(rows, ("NAME", "KIND", "TARGET", "FROM")):
            say(line)
    for warning in warnings:
        note(warning)
    if not found:
        note("no servers; add [[server]] to fulcrum.toml")


def _remote(url: str | None) -> list[dict[str, object]] | None:
    address = gateway_address(url, None)
    if not address:
        return None
    from fulcrum_mcp.cli.remote import RemoteTarget  # noqa: PLC0415 (one of the two is needed)

    return list(RemoteTarget(address).list_servers())
