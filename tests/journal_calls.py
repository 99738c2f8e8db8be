"""Calls that a journal admits, and what of them is in its log."""

import asyncio
import json
from typing import Any

from journal_doubles import GatedLog

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Amounts, Budget, Match, Outcome, Reserve, Scope
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.journal import Journal

__all__ = ["TEN", "Calls", "draft", "reached", "reserve", "spin", "subjects"]

TEN = Budget("b1", "acme", "ten calls", Scope("tenant"), {"calls": 10}, thresholds=(10,))


def reserve(call: str, budget: Budget | None = TEN) -> Reserve:
    matches = () if budget is None else (Match(budget, "acme"),)
    return Reserve(call, 0, "acme", "memory", matches, Amounts(), now_ns(), 90)


def draft(subject: str, kind: str = "decided") -> RecordDraft:
    return RecordDraft(new_id(), "acme", f"dev.fulcrum.tool_call.{kind}", subject, now_ns(), b"{}")


class Calls:
    """Admissions to one journal, and what became of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.abandoned: list[tuple[str, Outcome | None]] = []

    async def admit(self, call: str) -> Outcome | None:
        return await self._journal.admit(
            reserve(call), lambda _: draft(call), lambda outcome: self.abandoned.append((call, outcome))
        )

    def start(self, call: str) -> "asyncio.Task[Outcome | None]":
        return asyncio.create_task(self.admit(call))


def subjects(log: GatedLog, kind: str = "decided") -> list[str]:
    records: list[dict[str, Any]] = [json.loads(line) for line in log.lines]
    return [record["subject"] for record in records if record["type"].endswith(kind)]


async def reached(log: GatedLog) -> None:
    async with asyncio.timeout(5):
        await asyncio.to_thread(log.reached.wait, 5)


async def spin(times: int = 20) -> None:
    for _ in range(times):
        await asyncio.sleep(0)
