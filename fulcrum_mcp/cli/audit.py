"""`fulcrum audit tail|query|export|verify|reconcile`."""

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fulcrum_mcp.cli.audit_remote import RemoteTrail
from fulcrum_mcp.cli.audit_view import describe
from fulcrum_mcp.cli.options import ConfigOption, DataOption, JsonOption, UrlOption, seconds
from fulcrum_mcp.cli.output import note, say
from fulcrum_mcp.cli.target import gateway_address
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports import AuditQuery

__all__ = ["app"]

app = typer.Typer(
    help="Follow, query, export, verify and reconcile the audit trail.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_DECIDED = "dev.fulcrum.tool_call.decided"
_FINISHED = "dev.fulcrum.tool_call.finished"
_OUTCOMES = ("ok", "error", "timeout", "cancelled", "outcome_unknown", "withheld")
_EFFECTS = ("allow", "deny", "require_approval", *_OUTCOMES)
_SPAN = re.compile(r"(\d{1,9})(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_POLL = 0.25
_PATIENCE = 2.0
_AT_ONCE = 500

LinesOption = Annotated[bool, typer.Option("--json", help="The records as they are, one a line.")]


def _data_folder(data: Path | None) -> Path:
    from fulcrum_mcp import logs  # noqa: PLC0415 - verify needs none of it
    from fulcrum_mcp.settings import load  # noqa: PLC0415 - same

    logs.configure("error")  # else the store's and the spool's words would stand among the records
    settings = load(None, environ=os.environ, overrides={"data": data})
    if settings.postgres is not None:
        raise Invalid(f"{settings.data}: this installation keeps its trail in Postgres; name a gateway with --url")
    return settings.data


def _moment(text: str | None, option: str) -> int | None:
    """`90s`, `30m`, `1h`, `2d`, `1w` ago, or a time in RFC 3339; in ns."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        return time.time_ns() - int(span[1]) * _UNITS[span[2]] * 1_000_000_000
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        raise Invalid(f'{option} "{text}" is neither a span such as 90s, 30m, 1h, 2d nor a time in RFC 3339') from None


@app.command()
def query(
    *,
    tool: Annotated[
        str | None, typer.Option(metavar="GLOB", help="SERVER__TOOL; * and ? match anything, as in 'files__*'.")
    ] = None,
    effect: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="allow, deny, require_approval; or how a call ended: ok, error, timeout, ..."
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Who called.")] = None,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="1h, 2d, ... ago, or a time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="As since.")] = None,
    kind: Annotated[str, typer.Option("--type", help="A record's type; 'all' for every one.")] = _DECIDED,
    call: Annotated[str | None, typer.Option(metavar="ID", help="A call's id.")] = None,
    decision: Annotated[str | None, typer.Option(metavar="ID", help="A decision's id.")] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Of one tenant only (with --data).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 100,
    as_json: LinesOption = False,
    data: DataOption = None,
    url: UrlOption = None,
) -> None:
    """Records that match, oldest first."""
    if effect is not None and effect not in _EFFECTS:
        raise Invalid(f'--effect "{effect}" is not one of {", ".join(_EFFECTS)}')
    if effect in _OUTCOMES and kind == _DECIDED:
        kind = _FINISHED
    wanted = AuditQuery(
        tenant=tenant,
        tool=tool,
        effect=effect,
        agent=agent,
        type=None if kind == "all" else kind,
        call=call,
        decision=decision,
        since=_moment(since, "--since"),
        until=_moment(until, "--until"),
        limit=limit,
    )
    address = gateway_address(url, data)
    found = RemoteTrail(address).query(wanted)[0] if address else _local(_data_folder(data), wanted)
    for line in reversed(found):
        say(line.decode() if as_json else str(describe(line)))
    if not found and not as_json:
        note("nothing matches")


def _local(data: Path, wanted: AuditQuery) -> list[bytes]:
    from fulcrum_mcp.composition.audit import open_trail  # noqa: PLC0415 - loads SQLite and the keys
    from fulcrum_mcp.control.audit import query_records  # noqa: PLC0415 - same

    with open_trail(data, _PATIENCE) as trail:
        if not trail.complete:
            note("the processor of a running Fulcrum is behind: the newest records are missing here")
        return [record.line for record in query_records(trail.reader, wanted)]


@app.command()
def tail(
    *,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=1000, help="Begin so many calls ago.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C.")] = True,
    as_json: LinesOption = False,
    data: DataOption = None,
    url: UrlOption = None,
) -> None:
    """One line a call, as it happens."""
    address = gateway_address(url, data)
    if address:
        _follow(RemoteTrail(address).query, lines, follow=follow, as_json=as_json)
        return
    from fulcrum_mcp.composition.audit import open_trail  # noqa: PLC0415 - loads SQLite and the keys

    with open_trail(_data_folder(data), _PATIENCE) as trail:

        def fetch(wanted: AuditQuery) -> tuple[list[bytes], int | None]:
            if wanted.after is not None:
                trail.refresh()
            found = trail.reader.query(wanted)
            return [record.line for record in found], found[-1].row if found else wanted.after

        _follow(fetch, lines, follow=follow, as_json=as_json)


Fetch = Callable[[AuditQuery], tuple[list[bytes], int | None]]
"""Records and the row of the last one: newest first, or oldest first with `after`."""


def _follow(fetch: Fetch, lines: int, *, follow: bool, as_json: bool) -> None:
    """The newest calls (`as_json`: records) that are there, then everything that comes."""
    kind = None if as_json or not lines else _DECIDED
    old, row = fetch(AuditQuery(type=kind, limit=max(lines, 1)))
    after = 0 if row is None or len(old) < lines else row if not lines else row - 1
    begun = False
    with suppress(KeyboardInterrupt):  # the way to end it
        while follow or not begun:
            some, row = fetch(AuditQuery(after=after, limit=_AT_ONCE))
            after = after if row is None else row
            _show(some, as_json=as_json)
            if len(some) < _AT_ONCE:
                begun = True
                if follow:
                    time.sleep(_POLL)


def _show(lines: Iterable[bytes], *, as_json: bool) -> None:
    for line in lines:
        text = line.decode() if as_json else describe(line, quiet=True)
        if text is not None:
            say(text)


@app.command(short_help="Write all of it, signed, for verify.")
def export(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; - is standard output.")],
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Of one tenant only (with --data).")] = None,
    data: DataOption = None,
    url: UrlOption = None,
) -> None:
    """Everything, verbatim, with checkpoints and a signed manifest: for `fulcrum audit verify`."""
    from fulcrum_mcp.cli import audit_export  # noqa: PLC0415 - loads the progress bar

    address = gateway_address(url, data)
    if address:
        audit_export.remote(RemoteTrail(address), output)
    else:
        audit_export.local(_data_folder(data), output, tenant)


@app.command(short_help="Is an exported trail whole? 0 yes, 1 no.")
def verify(
    file: Annotated[Path, typer.Argument(help="What `fulcrum audit export` wrote.")],
    *,
    public_key: Annotated[
        Path,
        typer.Option(
            "--public-key",
            help="Of the key that signs: keys/audit.pub of a data folder; several gateways: openssl pkey -pubout.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Is the trail whole? 0 = yes, 1 = no, the first bad record is named; 2 = it cannot be read."""
    from fulcrum_mcp.cli import audit_verify  # noqa: PLC0415 - loads the key reader

    raise typer.Exit(audit_verify.verify(file, public_key, as_json=as_json))


@app.command(short_help="Do spool, stream and store hold the same? 0 yes, 1 no.")
def reconcile(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Store what a spool of this machine has and the store has not.")
    ] = False,
    wait: Annotated[
        str, typer.Option(metavar="SPAN", help="How long what is missing may still be under way: 10s, 2m.")
    ] = "10s",
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the spools of this machine, the stream and the store, record by record.

    With [postgres] in the settings those of an installation, else those of the data folder. 0 = the same everywhere,
    1 = not, each difference is named; 3 = a part cannot be asked.
    """
    from fulcrum_mcp import logs  # noqa: PLC0415 - verify needs none of it
    from fulcrum_mcp.cli import audit_reconcile  # noqa: PLC0415 - loads stores and spools
    from fulcrum_mcp.settings import load  # noqa: PLC0415 - verify needs none of it

    logs.configure("error")
    settings = load(config, environ=os.environ, overrides={"data": data})
    patience = seconds(wait, "--wait")
    raise typer.Exit(audit_reconcile.run(settings, mend=repair, patience=patience, as_json=as_json))
