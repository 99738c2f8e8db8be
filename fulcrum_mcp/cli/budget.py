"""`fulcrum budget`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fulcrum_mcp.cli.options import ConfigOption, DataOption, JsonOption, UrlOption
from fulcrum_mcp.cli.output import bar, clean, note, say, say_json, table
from fulcrum_mcp.cli.target import open_target
from fulcrum_mcp.core.budget_text import amount_text

__all__ = ["app"]

app = typer.Typer(
    help="Make, list and delete budgets.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
_CENT, _TEN = 0.01, 10
_SCOPE = "KIND[:ID]: global, tenant, agent, key, workflow, envelope, server, tool or model; without ID one for each."


@app.command()
def create(
    scope: Annotated[str, typer.Option(metavar="KIND[:ID]", help=_SCOPE)],
    calls: Annotated[str | None, typer.Option(metavar="N", help="Calls in a period.")] = None,
    usd: Annotated[str | None, typer.Option(metavar="N", help="Dollars in a period, such as 0.50.")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="N", help="Input and output tokens in a period.")] = None,
    input_tokens: Annotated[str | None, typer.Option(metavar="N")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="N")] = None,
    bytes_: Annotated[str | None, typer.Option("--bytes", metavar="N")] = None,
    seconds: Annotated[str | None, typer.Option(metavar="N")] = None,
    rate: Annotated[str | None, typer.Option(metavar="N/PERIOD[:BURST]", help="Such as 10/minute:3.")] = None,
    period: Annotated[str, typer.Option(help="minute to year, infinite, or a number of seconds.")] = "day",
    action: Annotated[str, typer.Option(help="warn, soft (a person may allow more) or hard.")] = "hard",
    name: Annotated[str | None, typer.Option(help="What people call it; default: what it limits.")] = None,
    threshold: Annotated[
        str | None, typer.Option(metavar="PERCENTS", help="When to record an event: 50,80,100.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Where its days begin, such as Europe/Paris.")] = "UTC",
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a budget; running gateways hold to it within a second."""
    given: dict[str, Any] = {
        "scope": scope,
        "calls": calls,
        "usd": usd,
        "tokens": tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "bytes": bytes_,
        "seconds": seconds,
        "rate": rate,
        "period": period,
        "action": action,
        "name": name,
        "thresholds": threshold,
        "timezone": timezone,
    }
    with open_target(url, data, must_exist=False) as target:
        made = target.create_budget({key: value for key, value in given.items() if value is not None})
    if as_json:
        say_json({"budget": made})
    else:
        say(f'budget {made["id"]} "{clean(made["name"])}" holds from now on ({made["action"]})')


@app.command("list")
def list_(
    url: UrlOption = None, data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List budgets: how much is used, how fast, and when each resets. --config adds those of a file."""
    with open_target(url, data, config) as target:
        budgets = target.list_budgets()
    if as_json:
        say_json({"budgets": list(budgets)})
        return
    for budget in budgets:
        for line in _lines(budget, datetime.now(UTC)):
            say(line)
    if not budgets:
        note("no budgets yet; fulcrum budget create --scope agent --usd 1 --period day makes one")


@app.command()
def delete(
    budget_id: Annotated[str, typer.Argument(metavar="ID", help="As fulcrum budget list shows it.")],
    url: UrlOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a budget; what it had counted is forgotten."""
    with open_target(url, data) as target:
        target.delete_budget(budget_id)
    if as_json:
        say_json({"deleted": budget_id})
    else:
        say(f"budget {clean(budget_id)} is deleted")


def _lines(budget: dict[str, Any], now: datetime) -> Iterator[str]:
    where = " (in a file)" if budget["source"] == "file" else ""
    yield f"{clean(budget['name'])}  [{clean(', '.join(_facts(budget)))}]  {budget['id']}{where}"
    rows: list[tuple[str, ...]] = []
    for usage in budget["usage"]:
        for amount, limit in budget["limits"].items():
            used = usage["committed"][amount] + usage["reserved"][amount]
            noun = "" if amount == "usd_micros" else f" {amount.replace('_', ' ')}"
            percent = f"{min(used * 100 // limit, 999)} %" if limit else "full"
            rows.append(
                (
                    f"  {usage['bucket']}",
                    bar(used, limit),
                    percent,
                    f"{amount_text(used, amount)} of {amount_text(limit, amount)}{noun}",
                    _pace(usage, amount, noun, now),
                    _resets(usage["resets_at"], now),
                )
            )
    if rows:
        yield from table(rows)
    elif budget["limits"]:
        yield "  nothing used yet"


def _facts(budget: dict[str, Any]) -> Iterator[str]:
    """What the name does not say already."""
    said = budget["name"].startswith(f"{budget['scope']}: ")
    if not said:
        yield budget["scope"]
        if budget["limits"]:
            yield f"per {budget['period']}"
        if budget["rate"]:
            yield f"rate {budget['rate']}"
    yield budget["action"]


def _pace(usage: dict[str, Any], amount: str, noun: str, now: datetime) -> str:
    """How fast it is used, over the part of the window that has passed."""
    if not usage["window_start"]:
        return "-"
    seconds = max((now - datetime.fromisoformat(usage["window_start"])).total_seconds(), 1)
    hourly = usage["committed"][amount] * 3_600 / seconds
    if amount == "usd_micros":
        dollars = hourly / 1_000_000
        return f"${dollars:,.2f} an hour" if dollars >= _CENT or not dollars else f"${dollars:.6f} an hour"
    return f"{hourly:,.{0 if hourly >= _TEN or not hourly else 1}f}{noun} an hour"


def _resets(text: str | None, now: datetime) -> str:
    if text is None:
        return "never resets"
    left = int((datetime.fromisoformat(text) - now).total_seconds())
    days, rest = divmod(max(left, 0), 86_400)
    span = f"{days} d {rest // 3_600} h" if days else f"{rest // 3_600} h {rest % 3_600 // 60} min"
    return f"resets {text[:16].replace('T', ' ')} UTC, in {span}"
