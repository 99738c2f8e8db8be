"""What all commands about policies share: how they are asked, and how what is wrong is said."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from fulcrum_mcp.cli.output import clean
from fulcrum_mcp.cli.policy_data import problem_data
from fulcrum_mcp.cli.policy_view import problem_lines
from fulcrum_mcp.errors import FulcrumError, Invalid, NotFound, Unauthenticated, Unprivileged

__all__ = ["Json", "Where", "spoken"]

Where = Annotated[str, typer.Argument(metavar="DIR|FILE", help="A policy folder, a .rego file, or a starter's name.")]
Json = Annotated[bool, typer.Option("--json", help="For machines: one JSON value on standard output.")]


@contextmanager
def spoken(*, as_json: bool = False) -> Iterator[None]:
    """Errors become lines and an exit code, never a traceback; faults of policies begin with file and line."""
    try:
        yield
    except FulcrumError as exc:
        problems = getattr(exc, "problems", ())
        if as_json:
            typer.echo(json.dumps({"error": str(exc), "problems": [problem_data(problem) for problem in problems]}))
        else:
            for line in problem_lines(problems) or [f"fulcrum policy: {clean(part)}" for part in str(exc).splitlines()]:
                typer.echo(line, err=True)
        wrong = isinstance(exc, Invalid | Unauthenticated | Unprivileged)
        code = (1 if problems or isinstance(exc, NotFound) else 2) if wrong or isinstance(exc, NotFound) else 3
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
