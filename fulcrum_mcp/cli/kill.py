"""`fulcrum kill`: stop an agent, a key, a tool, a server or a tenant at once, and let it go on again."""

from typing import Annotated, Any

import typer

from fulcrum_mcp.cli.options import DataOption, JsonOption, UrlOption
from fulcrum_mcp.cli.output import clean, note, say, say_json, table
from fulcrum_mcp.cli.target import open_target
from fulcrum_mcp.errors import Invalid

__all__ = ["app"]

app = typer.Typer(
    help="Stop an agent, key, tool, server or tenant at once; lift it again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
_TARGET = "KIND:NAME: key (its id), agent, tool (server__tool), server or tenant, such as agent:billing-bot."
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="Whose calls; default: those of your own tenant.")
]
EverybodyOption = Annotated[bool, typer.Option("--everybody", help="The calls of all tenants.")]


@app.command(short_help="Deny its calls, and cancel those in flight.")
def on(
    target: Annotated[str, typer.Argument(metavar="KIND:NAME", help=_TARGET)],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; whoever is stopped reads it.")],
    tenant: TenantOption = None,
    everybody: EverybodyOption = False,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deny its calls from now on and cancel those in flight; gateways obey within a second, without NATS within 5."""
    fields: dict[str, Any] = {"target": target, "reason": reason, "everybody": everybody}
    if tenant is not None:
        fields["tenant"] = tenant
    with open_target(url, data) as found:
        thrown = found.throw_switch(fields)
    if as_json:
        say_json(thrown)
        return
    switch = thrown["kill_switch"]
    since = "from now on" if thrown["made"] else f"already, since {switch['since']} ({clean(switch['reason'])})"
    say(f"{clean(switch['target'])} is stopped {since}; fulcrum kill off {switch['id']} lifts it")


@app.command()
def off(
    which: Annotated[str, typer.Argument(metavar="ID|KIND:NAME", help="As fulcrum kill list shows it.")],
    tenant: TenantOption = None,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lift a kill switch; calls may go on."""
    with open_target(url, data) as found:
        switch_id = which
        if ":" in which:
            named = [switch["id"] for switch in found.list_switches(tenant) if switch["target"] == which]
            if len(named) > 1:
                raise Invalid(f"{which}: stopped twice, by {' and '.join(named)}; name one of them")
            switch_id = named[0] if named else which
        lifted = found.lift_switch(switch_id, tenant)
    if as_json:
        say_json({"kill_switch": lifted})
    else:
        say(f"{clean(lifted['target'])} may go on (it was stopped since {lifted['since']})")


@app.command("list")
def list_(
    tenant: TenantOption = None, url: UrlOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List what is stopped, by whom and why."""
    with open_target(url, data) as found:
        switches = found.list_switches(tenant)
    if as_json:
        say_json({"kill_switches": list(switches)})
        return
    rows = [
        (
            switch["id"],
            switch["target"],
            "everybody" if switch["everybody"] else switch["tenant"],
            switch["since"],
            switch["by"],
            switch["reason"],
        )
        for switch in switches
    ]
    for line in table(rows, ("ID", "TARGET", "OF", "SINCE", "BY", "REASON")):
        say(line)
    if not rows:
        note("nothing is stopped; fulcrum kill on agent:NAME --reason TEXT stops one")
