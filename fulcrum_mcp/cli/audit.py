"""`fulcrum audit tail|query|export|verify`."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fulcrum_mcp.cli.audit_remote import RemoteTrail
from fulcrum_mcp.cli.audit_view import clean, describe
from fulcrum_mcp.errors import FulcrumError, Invalid, Unauthenticated, Unprivileged
from fulcrum_mcp.ports import AuditQuery

__all__ = ["app"]

app = typer.Typer(help="The audit trail: what was asked, decided and done.", no_args_is_help=True)

_DECIDED = "dev.fulcrum.tool_call.decided"
_SPAN = re.compile(r"(\d{1,9})(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_POLL = 0.25

Data = Annotated[Path | None, typer.Option("--data", help="The data folder; the default one if not given.")]
Url = Annotated[str | None, typer.Option("--url", help="Ask a running server; FULCRUM_API_KEY says who you are.")]
Json = Annotated[bool, typer.Option("--json", help="The records as they are, one a line.")]


@contextmanager
def _spoken() -> Iterator[None]:
    """Errors become one line and an exit code; a closed pipe or Ctrl-C ends quietly."""
    try:
        yield
    except (Invalid, Unauthenticated, Unprivileged) as exc:
        typer.echo(clean(exc), err=True)
        raise typer.Exit(2) from None
    except FulcrumError as exc:
        typer.echo(clean(exc), err=True)
        raise typer.Exit(3) from None
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        typer.echo(f"{clean(exc.filename)}: {exc.strerror}", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _data_folder(data: Path | None) -> Path:
    from fulcrum_mcp.settings import load  # noqa: PLC0415 - verify needs none of it

    return load(None, environ=os.environ, overrides={"data": data}).data


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
    tool: Annotated[str | None, typer.Option(help="SERVER__TOOL; * and ? match anything, as in 'files__*'.")] = None,
    effect: Annotated[
        str | None, typer.Option(help="allow, deny, require_approval; for finished calls the outcome.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Who called.")] = None,
    since: Annotated[str | None, typer.Option(help="1h, 2d, ... ago, or a time.")] = None,
    until: Annotated[str | None, typer.Option(help="As since.")] = None,
    kind: Annotated[str, typer.Option("--type", help="A record's type; 'all' for every one.")] = _DECIDED,
    call: Annotated[str | None, typer.Option(help="A call's id.")] = None,
    decision: Annotated[str | None, typer.Option(help="A decision's id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of one tenant only (with --data).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 100,
    as_json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Records that match, oldest first."""
    with _spoken():
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
        found = list(_remote_lines(RemoteTrail(url), wanted) if url else _local_lines(_data_folder(data), wanted))
        for _, line in reversed(found):
            typer.echo(line.decode() if as_json else describe(line))
        if not found and not as_json:
            typer.echo("nothing matches", err=True)


def _local_lines(data: Path, wanted: AuditQuery) -> Iterator[tuple[int, bytes]]:
    from fulcrum_mcp.composition.audit import open_trail  # noqa: PLC0415 - loads SQLite and the keys
    from fulcrum_mcp.control.audit import query_records  # noqa: PLC0415 - same

    with open_trail(data, 2.0) as trail:
        if not trail.complete:
            typer.echo("the processor of a running Fulcrum is behind: the newest records are missing here", err=True)
        yield from query_records(trail.reader, wanted)


def _remote_lines(trail: RemoteTrail, wanted: AuditQuery) -> Iterator[tuple[int, bytes]]:
    names = ("tool", "effect", "agent", "type", "call", "decision", "since", "until", "limit", "after")
    parameters = {name: getattr(wanted, name) for name in names}
    for name in ("since", "until"):
        if parameters[name] is not None:
            parameters[name] = datetime.fromtimestamp(parameters[name] / 1e9, UTC).isoformat()
    for document in trail.query(parameters):
        yield int(document["row"]), json.dumps(document["record"], separators=(",", ":")).encode()


@app.command()
def tail(
    *,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=1000, help="Begin with so many old ones.")] = 10,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C.")] = True,
    as_json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """One line a call, as it happens."""
    with _spoken():
        if url:
            trail = RemoteTrail(url)
            _follow(lambda wanted: list(_remote_lines(trail, wanted)), lines, follow=follow, as_json=as_json)
            return
        from fulcrum_mcp.composition.audit import open_trail  # noqa: PLC0415 - loads SQLite and the keys

        with open_trail(_data_folder(data), 2.0) as local:

            def fetch(wanted: AuditQuery) -> list[tuple[int, bytes]]:
                local.refresh()
                return list(local.reader.query(wanted))

            _follow(fetch, lines, follow=follow, as_json=as_json)


def _follow(fetch: Callable[[AuditQuery], list[tuple[int, bytes]]], lines: int, *, follow: bool, as_json: bool) -> None:
    last = 0
    for row, line in reversed(fetch(AuditQuery(limit=max(lines, 1)))):
        last = max(last, row)
        if lines:
            _show(line, as_json=as_json)
    while follow:
        some = fetch(AuditQuery(after=last, limit=500))
        for row, line in some:
            last = row
            _show(line, as_json=as_json)
        if not some:
            time.sleep(_POLL)


def _show(line: bytes, *, as_json: bool) -> None:
    text = line.decode() if as_json else describe(line, quiet=True)
    if text is not None:
        typer.echo(text)


@app.command()
def export(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; - is standard output.")],
    tenant: Annotated[str | None, typer.Option(help="Of one tenant only (with --data).")] = None,
    data: Data = None,
    url: Url = None,
) -> None:
    """Everything, verbatim, with checkpoints and a signed manifest: for `fulcrum audit verify`."""
    from fulcrum_mcp.cli import audit_export  # noqa: PLC0415 - loads the progress bar

    with _spoken():
        if url:
            audit_export.remote(RemoteTrail(url), output)
        else:
            audit_export.local(_data_folder(data), output, tenant)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `fulcrum audit export` wrote.")],
    *,
    public_key: Annotated[Path, typer.Option("--public-key", help="keys/audit.pub of the data folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
) -> None:
    """Is the trail whole? 0 = yes, 1 = no, the first bad record is named; 2 = it cannot be read."""
    from fulcrum_mcp.cli import audit_verify  # noqa: PLC0415 - loads the key reader

    with _spoken():
        raise typer.Exit(audit_verify.verify(file, public_key, as_json=as_json))
