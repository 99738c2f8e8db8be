"""Tables of `audit.db`, and how it is opened."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from fulcrum_adapters.sqlite.connect import open_wal
from fulcrum_mcp.errors import Unavailable

__all__ = ["SCHEMA", "connect"]

VERSION = 1
_PAGE = 16384
_PATIENCE = 10.0
"""Seconds to wait for another process's transaction."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS audit_events (
    id INTEGER PRIMARY KEY, chain TEXT NOT NULL, seq INTEGER NOT NULL, tenant TEXT NOT NULL, type TEXT NOT NULL,
    time INTEGER NOT NULL, call TEXT NOT NULL, leg INTEGER, decision TEXT, agent TEXT, tool TEXT, effect TEXT,
    line BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS audit_events_place ON audit_events (chain, seq);
CREATE INDEX IF NOT EXISTS audit_events_call ON audit_events (call);
CREATE INDEX IF NOT EXISTS audit_events_decision ON audit_events (decision) WHERE decision IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_events_time ON audit_events (time);
CREATE TABLE IF NOT EXISTS call_inputs (
    id INTEGER PRIMARY KEY, record TEXT NOT NULL, time INTEGER NOT NULL, inputs BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS call_inputs_record ON call_inputs (record);
CREATE INDEX IF NOT EXISTS call_inputs_time ON call_inputs (time);
CREATE TABLE IF NOT EXISTS audit_chains (
    chain TEXT PRIMARY KEY, tenant TEXT NOT NULL, size INTEGER NOT NULL, head TEXT NOT NULL, frontier BLOB NOT NULL,
    signed INTEGER NOT NULL, broken TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_checkpoints (
    tenant TEXT NOT NULL, number INTEGER NOT NULL, line BLOB NOT NULL, PRIMARY KEY (tenant, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spool_positions (
    writer TEXT PRIMARY KEY, segment INTEGER NOT NULL, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_faults (
    id INTEGER PRIMARY KEY, writer TEXT NOT NULL, what TEXT NOT NULL, line BLOB NOT NULL);
"""


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open `audit.db`; a reader gets an empty one when nothing was ever recorded. Raises `Unavailable`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            connection.close()
            raise Unavailable(f"{path} was written by a newer Fulcrum: use that one")
        if version < VERSION:
            connection.execute(f"PRAGMA page_size = {_PAGE}")  # a page holds many records: half the work of 4096
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:  # another process does the same at the same moment
                open_wal(path, busy_timeout=_PATIENCE).close()
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -2048")
        connection.execute(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
    except (sqlite3.Error, OSError) as exc:
        raise Unavailable(f"the audit store {path} cannot be opened: {exc}") from exc
    return connection
