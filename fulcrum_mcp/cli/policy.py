"""`fulcrum policy`: for people who write policies, before and after they are live."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fulcrum_mcp.cli.options import DataOption, UrlOption
from fulcrum_mcp.cli.output import clean
from fulcrum_mcp.cli.policy_data import decision_data, problem_data, suite_data
from fulcrum_mcp.cli.policy_spoken import Json, Where, spoken
from fulcrum_mcp.cli.policy_store import history, publish, restore, show
from fulcrum_mcp.cli.policy_view import case_line, decision_lines, problem_lines, record_lines, rule_line, spoken_line
from fulcrum_mcp.errors import Invalid

__all__ = ["app"]

app = typer.Typer(
    help="Policies: find faults, run their tests, ask what they decide and why; publish them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Policies = Annotated[
    str, typer.Option("--policies", metavar="DIR", help="A policy folder, a .rego file, or a starter's name.")
]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="FILE", help="A file with one policy input document as JSON; - reads it."),
]


app.command(short_help="Try a folder's policies and have gateways judge by them.")(publish)
for _command in (history, show, restore):
    app.command()(_command)


@app.command()
def check(
    where: Where,
    *,
    tools: Annotated[
        Path | None,
        typer.Option("--tools", metavar="FILE", help="JSON {server: [tool, ...]}: warn of tools that no rule allows."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Ask the servers of this configuration for their tools instead."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong or doubtful. Exit code 1: it cannot be used."""
    with spoken(as_json=as_json):
        from fulcrum_mcp.composition.policy import check_policies  # noqa: PLC0415 - loads the engine

        problems = check_policies(where, tools, config)
        failed = any(strict or problem.severity == "error" for problem in problems)
        if as_json:
            typer.echo(json.dumps({"ok": not failed, "problems": [problem_data(problem) for problem in problems]}))
        else:
            for line in problem_lines(problems):
                typer.echo(line)
            if not problems:
                typer.echo(f"{where}: no fault found")
        raise typer.Exit(1 if failed else 0)


@app.command("test")
def run(
    where: Where,
    *,
    coverage: Annotated[bool, typer.Option("--coverage", help="Show which lines no test reached.")] = False,
    as_json: Json = False,
) -> None:
    """Run `*_test.rego` and `cases/*.yaml`. Exit code 1: one failed, or there is none."""
    with spoken(as_json=as_json):
        from fulcrum_mcp.composition.policy import run_tests  # noqa: PLC0415 - loads the engine

        result = run_tests(where, coverage=coverage)
        if as_json:
            typer.echo(json.dumps(suite_data(result)))
            raise typer.Exit(0 if result.ok else 1)
        for rule in result.rules:
            if not rule.passed:
                typer.echo(rule_line(rule))
            for line in rule.prints:
                typer.echo(clean(f"    {line}"))
        for found in result.cases:
            if found.faults:
                typer.echo(case_line(found))
        failed = sum(not rule.passed for rule in result.rules) + sum(bool(found.faults) for found in result.cases)
        total = len(result.rules) + len(result.cases)
        if coverage:
            _show_coverage(result.coverage)
        typer.echo(f"{total - failed} of {total} passed" if total else f"{where}: no tests; write cases/*.yaml")
        raise typer.Exit(0 if result.ok else 1)


@app.command("eval")
def evaluate(*, policies: Policies, given: Input = "-", as_json: Json = False) -> None:
    """Decide about one input and print the decision. Exit code 0, whatever the decision is."""
    with spoken(as_json=as_json):
        from fulcrum_mcp.composition.policy import evaluate_input, read_input  # noqa: PLC0415 - loads the engine

        decision = evaluate_input(policies, read_input(_read(given or "-")))
        if as_json:
            typer.echo(json.dumps(decision_data(decision)))
        else:
            for line in decision_lines(decision):
                typer.echo(line)


@app.command(short_help="Show which rule said what about a decision.")
def explain(
    decision: Annotated[str | None, typer.Argument(metavar="[ID]", help="A recorded decision, dec_...")] = None,
    *,
    policies: Annotated[
        str | None,
        typer.Option("--policies", metavar="DIR", help="The policies to ask; default: those last used there."),
    ] = None,
    given: Input = None,
    data: DataOption = None,
    url: UrlOption = None,
    as_json: Json = False,
) -> None:
    """Show which rule said what, and the input as policy saw it: for an input, or for a recorded decision."""
    with spoken(as_json=as_json):
        if (decision is None) == (given is None):
            raise Invalid("explain: give a decision's id, or --input FILE with --policies; one of them")
        record: dict[str, Any] | None = None
        document: Any
        if given is not None:
            from fulcrum_mcp.composition.policy import read_input  # noqa: PLC0415 - loads the engine

            document = read_input(_read(given))
            if policies is None:
                raise Invalid("explain: --input needs --policies, the policies to ask")
        else:
            from fulcrum_mcp.cli.policy_record import recorded  # noqa: PLC0415 - loads SQLite or HTTP

            record, document = recorded(decision or "", data, url)
        _explain(record, document, policies, data, as_json=as_json)


def _explain(
    record: dict[str, Any] | None, document: Any, given: str | None, data: Path | None, *, as_json: bool
) -> None:
    spoken: list[Mapping[str, Any]] = []
    policies = given if given is not None or record is None else _last_used(data)
    notes: list[str] = []
    asked = policies is not None and isinstance(document, dict)
    if policies is not None and asked:
        from fulcrum_mcp.composition.policy import explain_input  # noqa: PLC0415 - loads the engine

        try:
            spoken = explain_input(policies, document)
            notes = _notes(record, document, policies)
        except Invalid as exc:
            if given is not None:
                raise
            asked = False
            notes = [f"the policies of {policies} cannot be asked again: {exc}"]
    else:
        notes = _notes(record, document, policies)
    if as_json:
        typer.echo(json.dumps({"decision": record, "spoken": spoken, "input": document, "notes": notes}))
        return
    for line in [*record_lines(record), *(clean(f"note: {note}") for note in notes)]:
        typer.echo(line)
    for one in spoken:
        typer.echo(spoken_line(one))
    if asked and not spoken:
        typer.echo("no rule spoke: what no policy allows is denied")
    typer.echo("input:")
    for line in json.dumps(document, indent=2, ensure_ascii=True).splitlines():
        typer.echo(f"  {line}")


def _last_used(data: Path | None) -> str | None:
    """The policies that the gateway of this data folder (or of the environment) was started with last."""
    from fulcrum_mcp.composition.policy import remembered_policies  # noqa: PLC0415 - loads the engine
    from fulcrum_mcp.settings import load  # noqa: PLC0415 - not for every command

    settings = load(None, environ=os.environ, overrides={"data": data})
    return str(settings.policies) if settings.policies is not None else remembered_policies(settings.data)


def _notes(record: dict[str, Any] | None, document: Any, policies: str | None) -> list[str]:
    """What has to be known to read the answer about a recorded decision."""
    if record is None:
        return []
    if document is None:
        return ["the input is not kept any more (or never was: audit.inputs)"]
    if policies is None:
        return ["name the policies with --policies to see files and lines"]
    from fulcrum_mcp.composition.policy import policies_of_decision  # noqa: PLC0415 - loads the engine

    notes = ["asked again with the input as it was recorded: what was redacted there was not seen again"]
    now, then = policies_of_decision(policies), record.get("policies") or {}
    changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    if changed:
        notes.append(f"changed since the decision: {', '.join(changed)}; below is what they say now")
    return notes


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise Invalid(f"--input {name}: {reason}; name a file with JSON, or - for standard input") from exc


def _show_coverage(coverage: Mapping[str, Any]) -> None:
    for path, lines in sorted(coverage.items()):
        total = len(lines.covered) + len(lines.missed)
        share = 100 * len(lines.covered) // total if total else 100
        missed = f", not reached: {', '.join(map(str, sorted(lines.missed)))}" if lines.missed else ""
        typer.echo(clean(f"{os.path.relpath(path) if os.path.exists(path) else path}: {share} %{missed}"))  # noqa: PTH110
