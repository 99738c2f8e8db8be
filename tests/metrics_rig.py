"""Calls whose metrics are known, and the questions that a tenant asks of them."""

import datetime as dt
from typing import Any

from archive_rig import Author, call_drafts, hour_start

from fulcrum_adapters.postgres.database import Database
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.ports import Archive, ArchivedRecord

__all__ = ["FUNCTIONS", "asked", "fill", "since_until", "written"]

FUNCTIONS = ("tenant_calls", "tenant_costs", "tenant_events", "tenant_latency")
_MINUTE = 60_000_000
_BATCH = 20
_START = hour_start()  # once: a run may go over the hour


def written() -> tuple[list[ArchivedRecord], list[tuple[str, str, int, bytes]]]:
    """Two tenants, two hours and the minutes in them, every effect and outcome, costs, events."""
    drafts: list[RecordDraft] = []
    for minute in (0, 1, 59, 60, 61):
        at = _START + minute * _MINUTE + 5_000_000
        for number in range(4):
            charged = {"calls": 1, "usd_micros": 100 + number, "input_tokens": 7}
            drafts += call_drafts(at=at + number, duration_us=10**number * 900, charged=charged)
        drafts += call_drafts(at=at, tool="write", effect="deny")
        drafts += call_drafts(at=at, tool="write", effect="require_approval", agent="bob")
        drafts += call_drafts(at=at, outcome="error", agent="bob", cost={"calls": 1, "usd_micros": 5})
        drafts += call_drafts(at=at, outcome="timeout", charged={})
        drafts += call_drafts(at=at, tenant="other", duration_us=40_000_000, cost={"usd_micros": 9})
        for tenant in ("default", "other"):
            drafts.append(RecordDraft(f"e{at}{tenant}", tenant, "dev.fulcrum.budget.warned", "b1", at * 1000, b"{}"))
    return Author("metrics").write(drafts)


def fill(archive: Archive) -> None:
    """In small batches: the TimescaleDB of the tests takes no large messages."""
    records, inputs = written()
    for _ in range(2):  # the second time counts for nothing
        for start in range(0, len(records), _BATCH):
            some = records[start : start + _BATCH]
            ids = {record.id for record in some}
            assert archive.store(some, [each for each in inputs if each[0] in ids]) == []


def since_until() -> tuple[dt.datetime, dt.datetime]:
    since = dt.datetime.fromtimestamp(_START // 1_000_000, dt.UTC)
    return since, since + dt.timedelta(hours=2)


def asked(database: Database, tenant: str | None, step: str, *, minutes: tuple[int, int] = (0, 120)) -> dict[str, Any]:
    """What each function answers, as the application's role."""
    since, _ = since_until()
    bounds = [since + dt.timedelta(minutes=minute) for minute in minutes]
    answers: dict[str, Any] = {}
    with database.session("fulcrum_app", tenant) as connection:
        for name in FUNCTIONS:
            rows = connection.execute(f"SELECT * FROM metrics.{name}(%s, %s, %s)".encode(), [step, *bounds])
            answers[name] = sorted(rows.fetchall(), key=repr)
    return answers
