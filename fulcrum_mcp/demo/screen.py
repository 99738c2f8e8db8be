"""What a person sees: left what the agent does, right what Fulcrum did with it. Plain lines without a terminal."""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fulcrum_mcp.demo.story import Step

__all__ = ["Screen", "shown_call"]

_MARKS = {
    "allowed": ("✔", "green"),
    "redacted": ("✔", "cyan"),
    "denied": ("✘", "red"),
    "hidden": ("✘", "red"),
    "over budget": ("✘", "yellow"),
    "whole": ("✔", "green"),
    "found": ("✔", "green"),
    "listed": ("✔", "green"),
    "recorded": ("✔", "green"),
    "unexpected": ("?", "magenta"),
}


def shown_call(step: Step) -> str:
    """A call as the agent writes it, without what says nothing here."""
    arguments = {name: value for name, value in step.arguments.items() if name != "repo_path"}
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":")) if arguments else ""
    return f"{step.tool} {text}".rstrip()


class Screen:
    """A live table on a terminal; elsewhere one line for each row as it is finished."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[Text, Text, Text, Text]] = []
        self._pending: str | None = None
        self._live = Live(console=console, refresh_per_second=12, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._pending = None
            self._live.update(self._view(), refresh=True)
            self._live.stop()

    def say(self, text: str) -> None:
        """One line above the table."""
        self._console.print(text, highlight=False, markup=False)

    def begin(self, what: str) -> None:
        """Something is under way."""
        self._pending = what
        if self._live is not None:
            self._live.update(self._view())

    def end(self, what: str, verdict: str, note: str, milliseconds: float | None = None) -> None:
        """It is done; this is what came of it."""
        self._pending = None
        mark, colour = _MARKS[verdict]
        took = "" if milliseconds is None else f"{milliseconds:.1f} ms"
        row = (Text(what), Text(f"{mark} {verdict}", style=f"bold {colour}"), Text(took, style="dim"), Text(note))
        self._rows.append(row)
        if self._live is None:
            self._console.print(
                f"{what:60} {mark} {verdict:12} {took:>8}  {note}", highlight=False, markup=False, soft_wrap=True
            )
        else:
            self._live.update(self._view())

    def _view(self) -> Group:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(ratio=5, no_wrap=True, overflow="ellipsis")
        table.add_column(width=13, no_wrap=True)
        table.add_column(width=8, justify="right", no_wrap=True)
        table.add_column(ratio=5, overflow="fold")
        table.add_row(
            *(Text(title, style="dim") for title in ("the agent", "Fulcrum", "it adds", "what it says")),
        )
        for row in self._rows:
            table.add_row(*row)
        if self._pending is None:
            return Group(Rule(style="dim"), table, Rule(style="dim"))
        return Group(Rule(style="dim"), table, Spinner("dots", text=Text(self._pending, style="dim")))


def record_line(record: Mapping[str, Any]) -> str:
    """One audit record in a line."""
    data: Mapping[str, Any] = record.get("data", {})
    kind = str(record.get("type", "")).removeprefix("dev.fulcrum.")
    what = " ".join(
        str(part)
        for part in (
            data.get("effect") or data.get("outcome") or "",
            "__".join(str(data[key]) for key in ("server", "tool") if data.get(key)),
        )
        if part
    )
    return f"{record.get('seq', '?'):>4}  {kind:20} {what}"
