"""`fulcrum`: one name, many commands; only the chosen one's module is imported, so that each starts fast."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TextIO

from fulcrum_mcp import __version__
from fulcrum_mcp.cli.output import clean
from fulcrum_mcp.errors import Conflict, FulcrumError, NotFound, Unavailable

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """Where a command's typer application is, and its line in `fulcrum --help`."""

    target: str
    help: str


COMMANDS: dict[str, Command] = {
    "up": Command("fulcrum_mcp.cli.up:app", "Start the gateway in front of your MCP servers."),
    "wrap": Command("fulcrum_mcp.cli.wrap:app", "Govern one stdio server: fulcrum wrap -- COMMAND ARGS..."),
    "demo": Command("fulcrum_mcp.cli.demo:app", "See it work in a minute, with real servers and a made-up agent."),
    "policy": Command("fulcrum_mcp.cli.policy:app", "Check, test, evaluate, explain and publish policies."),
    "kill": Command("fulcrum_mcp.cli.kill:app", "Stop an agent, key, tool, server or tenant at once."),
    "budget": Command("fulcrum_mcp.cli.budget:app", "Make, list and delete budgets."),
    "audit": Command("fulcrum_mcp.cli.audit:app", "Follow, query, export and verify the audit trail."),
    "keys": Command("fulcrum_mcp.cli.keys:app", "Make, list and revoke API keys."),
    "servers": Command("fulcrum_mcp.cli.servers:app", "List the MCP servers that a configuration names."),
    "server": Command("fulcrum_mcp.cli.server:app", "Serve as one of several gateways, on Postgres, Redis and NATS."),
    "processor": Command("fulcrum_mcp.cli.processor:app", "Store and sign what several gateways record."),
    "db": Command("fulcrum_mcp.cli.db:app", "Bring the Postgres database of several gateways up to date."),
}

_ANSWER_IS_NO, _USED_WRONGLY, _SOMETHING_MISSING, _INTERRUPTED = 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave: 0 done, 1 the answer is no, 2 used wrongly, 3 something needed is missing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in {"--help", "-h", "help"}:
        _say(_help(), sys.stdout)
        return 0 if arguments else _USED_WRONGLY
    if name in {"--version", "-V", "version"}:
        _say(f"fulcrum {__version__}", sys.stdout)
        return 0
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f'did you mean "fulcrum {near[0]}"?' if near else "fulcrum --help lists the commands."
        _say(f'fulcrum: no command "{clean(name)}"; {hint}', sys.stderr)
        return _USED_WRONGLY
    for number, argument in enumerate(arguments[1:], 1):
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            _say(f"fulcrum {name}: argument {number} is not UTF-8 text; write it in UTF-8", sys.stderr)
            return _USED_WRONGLY
    try:
        return _call(name, command, arguments[1:])
    except (Exception, KeyboardInterrupt) as exc:
        if isinstance(exc, FulcrumError | KeyboardInterrupt | BrokenPipeError) or not os.environ.get("FULCRUM_DEBUG"):
            return _fault(name, exc, arguments)
        raise


def _fault(name: str, exc: BaseException, arguments: list[str]) -> int:
    """Say what went wrong in one line and give the exit code."""
    if isinstance(exc, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(exc, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(exc, FulcrumError):
        for line in str(exc).removeprefix(f"{name}: ").split("\n"):
            _say(f"fulcrum {name}: {clean(line)}", sys.stderr)
        return _code(exc)
    from fulcrum_mcp.cli.fault import report  # noqa: PLC0415 (only when something went wrong)

    _say(report(f"fulcrum {name}", exc, arguments), sys.stderr)
    return _SOMETHING_MISSING


def _call(name: str, command: Command, arguments: list[str]) -> int:
    module, _, attribute = command.target.partition(":")
    app: Any = getattr(importlib.import_module(module), attribute)
    import typer.main  # noqa: PLC0415 (0.1 s that --help does not pay)

    program = f"fulcrum {name}"
    try:
        code = typer.main.get_command(app).main(
            args=arguments, prog_name=program, standalone_mode=False, obj=tuple(arguments)
        )
    except SystemExit as left:
        code = left.code
    except Exception as fault:
        from fulcrum_mcp.cli.usage import UsageFault, told  # noqa: PLC0415 (only when something is wrong)

        if not isinstance(fault, UsageFault):
            raise
        _say(told(program, fault), sys.stderr)
        return _USED_WRONGLY
    return code if isinstance(code, int) else 0


def _code(error: FulcrumError) -> int:
    if isinstance(error, NotFound | Conflict):
        return _ANSWER_IS_NO
    return _SOMETHING_MISSING if isinstance(error, Unavailable) else _USED_WRONGLY


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "fulcrum: a governance gateway between LLM agents and their tools.",
            "",
            "Usage: fulcrum COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "fulcrum COMMAND --help tells more. Two to begin with: fulcrum demo, fulcrum up --config ~/.mcp.json",
        ]
    )


def _say(text: str, to: TextIO) -> None:
    to.write(text + "\n")
    to.flush()
