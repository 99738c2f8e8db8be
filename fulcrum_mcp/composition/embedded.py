"""The stores of a gateway with nothing but a data folder: SQLite and a spool."""

import itertools
from pathlib import Path

import msgspec

from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.stores import Stores
from fulcrum_mcp.core.budget import Commit
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.records import outcome_unknown_draft
from fulcrum_mcp.ports import BudgetLedger
from fulcrum_mcp.settings import Settings

__all__ = ["finish_dead", "open_embedded", "recover"]


def open_embedded(settings: Settings) -> Stores:
    """Open the data folder. Raises `Invalid` and `Unavailable`."""
    folder = open_folder(settings.data)
    keys = AuditKeys(folder / "keys")
    config = SpoolConfig(durability=settings.audit.durability, max_bytes=settings.audit.max_spool)
    spool = Spool.open(folder / "spool", config)
    recovered = recover(folder, spool, config)
    store = SqliteStore(folder / "ledger.db", busy_timeout=0.0)
    return Stores(
        ledger=store.ledger,
        history=store.history,
        log=spool,
        keys=keys,
        recovered=recovered,
        recover=lambda: recover(folder, None, config),
        close=lambda: None,
    )


def recover(folder: Path, spool: Spool | None, config: SpoolConfig) -> int:
    """Finish what dead processes left open, as `outcome_unknown`; their reservations are committed at the estimate.

    `spool`: this process's own, taken over from a dead one perhaps; None for a later look at the others.
    """
    store = SqliteStore(folder / "ledger.db", create=spool is not None)
    try:
        return finish_dead(folder / "spool", spool, config, store.ledger)
    finally:
        store.close()


def finish_dead(root: Path, spool: Spool | None, config: SpoolConfig, ledger: BudgetLedger) -> int:
    """As `recover`, with the ledger that holds their reservations. Raises `Unavailable`: then try again."""
    count = 0
    for dead in itertools.chain(() if spool is None else (spool,), Spool.orphans(root, config)):
        open_calls = dead.open_calls
        left = ledger.open(dead.writer)
        if left:
            ledger.apply([Commit(call, leg, None, now_ns()) for call, leg in left])
        drafts = [outcome_unknown_draft(item.tenant, msgspec.json.decode(item.data)) for item in open_calls]
        if drafts:
            dead.append(drafts)
        count += len(drafts)
    return count
