"""Changes of keys and budgets as audit records: through a running gateway's journal, or a spool of their own."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.composition.audit import open_spool
from fulcrum_mcp.control.record import Record
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.journal import Journal

__all__ = ["into_journal", "into_spool"]

_PATIENCE = 10.0


def into_journal(journal: Callable[[], Journal], loop: asyncio.AbstractEventLoop) -> Record:
    """With the journal of a gateway whose loop this is; `journal` is asked at each change."""

    def record(principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        draft = _draft(principal, kind, subject, data)
        admission = journal().admit(None, lambda _: draft, lambda _: None)
        waiting = asyncio.run_coroutine_threadsafe(admission, loop)
        try:
            waiting.result(_PATIENCE)
        except TimeoutError:
            waiting.cancel()
            raise Unavailable(
                f"the audit trail did not take the record within {_PATIENCE:.0f} s, so nothing was changed; try again"
            ) from None

    return record


def into_spool(folder: Path) -> Record:
    """For a short command beside whoever else uses the data folder."""

    def record(principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        if not (folder / "spool").exists():
            _begin_ledger(folder)
        with open_spool(folder) as spool:
            spool.append([_draft(principal, kind, subject, data)])

    return record


def _begin_ledger(folder: Path) -> None:
    """A spool without a ledger means a ledger that was lost: who begins the one begins the other first."""
    store = SqliteStore(folder / "ledger.db")
    try:
        with store.transaction():
            pass
    finally:
        store.close()


def _draft(principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> RecordDraft:
    by = {"agent": principal.agent, "key": principal.key}
    return RecordDraft(
        id=new_id(),
        tenant=principal.tenant,
        type=kind,
        subject=subject,
        time=now_ns(),
        data=msgspec.json.encode({"by": by, **data}),
    )
