"""What commands print: plain aligned text for people, one JSON document for machines; nothing that a terminal obeys."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["bar", "clean", "note", "say", "say_json", "table"]

_FULL, _EMPTY = "█", "░"


def say(text: str) -> None:
    """One line of the answer."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """One line beside the answer."""
    _write(sys.stderr, text)


def say_json(document: Any) -> None:
    """The answer for machines."""
    _write(sys.stdout, json.dumps(document, indent=2))


def _write(to: Any, text: str) -> None:
    try:
        try:
            to.write(text + "\n")
        except UnicodeEncodeError:
            to.write(text.encode("ascii", "replace").decode() + "\n")
        to.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())
        raise SystemExit(0) from None


def clean(value: object) -> str:
    """Text that others wrote, without control characters."""
    return "".join(character if character.isprintable() else "?" for character in str(value))


def table(rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> list[str]:
    """Aligned columns; no trailing blanks."""
    cells = [[clean(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def bar(used: int, limit: int, width: int = 16) -> str:
    """How much of a limit is used; full only when it is all used."""
    share = 1.0 if limit == 0 else min(used / limit, 1.0)
    full = width if share >= 1 else min(int(share * width), width - 1)
    if used and not full:
        full = 1
    return _FULL * full + _EMPTY * (width - full)
