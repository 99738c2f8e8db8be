"""Audit records for people: one line each, safe for a terminal whatever a client put into a name."""

import json
import os
import sys
from typing import Any

import typer

from fulcrum_mcp.cli.output import clean

__all__ = ["describe"]

_MARKS = {
    "allow": ("✔ allowed", typer.colors.GREEN),
    "deny": ("✘ denied", typer.colors.RED),
    "require_approval": ("? approval", typer.colors.YELLOW),
}

_OVER = {"deny": "✘ over budget", "require_approval": "? over budget"}


def describe(line: bytes, *, quiet: bool = False) -> str | None:
    """One line for a person; with `quiet` None for what went as it should (a `finished` with outcome ok)."""
    record = json.loads(line)
    data = record.get("data")
    data = data if isinstance(data, dict) else {}
    kind = str(record.get("type", "")).removeprefix("dev.fulcrum.")
    when = str(record.get("time", ""))[:19].replace("T", " ")
    if kind == "tool_call.decided":
        return f"{when}  {_decided(data)}"
    if kind == "tool_call.finished":
        if quiet and data.get("outcome") == "ok":
            return None
        spent = _milliseconds(data.get("duration_us"))
        return clean(f"{when}  ↳ {data.get('outcome')}  {spent}  {data.get('decision_id')}")
    by = data.pop("by", None)
    who = by.get("agent") if isinstance(by, dict) else ""
    return clean(f"{when}  • {kind:<16}  {who or '':<12}  {record.get('subject')}  {_event(data)}")


def _decided(data: dict[str, Any]) -> str:
    word, colour = _MARKS.get(str(data.get("effect")), (str(data.get("effect")), typer.colors.WHITE))
    if any(_of_budget(reason) for reason in _items(data.get("reasons"))):
        word = _OVER.get(str(data.get("effect")), word)
    tool = f"{data.get('server')}__{data.get('tool')}" if data.get("server") else str(data.get("tool"))
    principal = data.get("principal")
    agent = principal.get("agent") if isinstance(principal, dict) else None
    parts = [f"{clean(agent):<12}", f"{clean(tool):<32}", _milliseconds(data.get("duration_us"))]
    parts += [clean(_reason(reason)) for reason in _items(data.get("reasons"))]
    parts.append(clean(data.get("decision_id")))
    return "  ".join([_coloured(f"{clean(word):<13}", colour), *(part for part in parts if part)])


def _event(data: dict[str, Any]) -> str:
    """What an event is about, in a few words."""
    for about in (data.get("key"), data.get("budget")):
        if isinstance(about, dict):
            return str(about.get("name"))
    switch = data.get("kill_switch")
    if isinstance(switch, dict):
        return f"{switch.get('target')}: {switch.get('reason')}"
    if "threshold" in data:
        return f"{data['threshold']} % of {data.get('limit')} {data.get('amount')} used by {data.get('bucket')}"
    return json.dumps(data, ensure_ascii=False)


def _items(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _of_budget(reason: dict[str, Any]) -> bool:
    return reason.get("code") in {"budget_exceeded", "rate_limited"} and not reason.get("rule")


def _reason(reason: dict[str, Any]) -> str:
    by, code, message = (str(reason.get(name) or "") for name in ("policy", "code", "message"))
    if _of_budget(reason):
        return f'budget "{by}": {message}'
    if code == "allowed":
        return f"policy {by}"
    who = f"{by} ({code})" if by and code and code != by else by or code
    return f"{who}: {message}" if message and message != code else who


def _milliseconds(value: object) -> str:
    return f"{value / 1000:.1f} ms" if isinstance(value, int) else ""


def _coloured(text: str, colour: str) -> str:
    return typer.style(text, fg=colour) if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
