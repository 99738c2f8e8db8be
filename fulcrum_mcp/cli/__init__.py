"""The command line: `main` is what `fulcrum` runs."""

from fulcrum_mcp.cli.dispatch import main

__all__ = ["main"]
