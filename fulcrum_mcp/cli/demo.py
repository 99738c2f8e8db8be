"""`fulcrum demo`: see it work, before anything is configured."""

from typing import Annotated

import typer
from rich.console import Console

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    *,
    leave: Annotated[
        bool, typer.Option("--exit", help="Leave when the play is over; 0 only if every scene went as announced.")
    ] = False,
) -> None:
    """Play an agent against a governed gateway in front of two real MCP servers from PyPI."""
    from fulcrum_mcp.demo.play import play  # noqa: PLC0415 - only this command needs it

    console = Console()
    raise typer.Exit(play(console, leave=leave or not console.is_terminal))
