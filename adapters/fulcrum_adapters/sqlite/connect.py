"""SQLite in WAL mode for files that several processes share: opening, transactions, and recovery from every fault.

Never open a database file by other means in the same process: closing such a descriptor drops SQLite's locks.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from os import O_CREAT, O_EXCL, O_WRONLY, close, stat
from os import open as open_descriptor
from pathlib import Path
from urllib.parse import quote

from fulcrum_mcp.errors import Unavailable

__all__ = ["WalDatabase", "open_wal"]

_PAUSE = 0.005
_OPENING = 0.1
"""Seconds to open a file that others are opening too, for those who otherwise never wait."""
_PATIENCE = 5
"""Milliseconds for which SQLite itself waits, looking every one or two."""
_FAULTS = (sqlite3.Error, OSError, OverflowError, UnicodeError)
_Identity = tuple[tuple[int, int], ...]


def open_wal(path: Path, *, busy_timeout: float = 1.0, create: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode, WAL, synchronous=NORMAL; a new file is readable by its owner only.

    It may be used on the calling thread only. Raises `sqlite3.Error` or `OSError`.
    """
    if create and not path.exists():
        with suppress(FileExistsError):
            close(open_descriptor(path, O_WRONLY | O_CREAT | O_EXCL, 0o600))
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    connection = sqlite3.connect(uri, timeout=busy_timeout, isolation_level=None, uri=True)
    try:
        _enter_wal(connection, time.monotonic() + busy_timeout)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages; most are written many times between
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Another process that does the same at the same moment makes SQLite answer "locked" without waiting."""
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as exc:
            if not _is_busy(exc) or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"journal mode is {mode}: the file system cannot hold a shared WAL")
        return


def _is_busy(exc: sqlite3.OperationalError) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


class WalDatabase:
    """One file, one connection, one thread, opened at first use.

    Every fault rolls back, closes the connection and is raised as `Unavailable`; the next use opens it anew. The file
    is created at the first use only (never without `create`): if it is gone later, or another one is there, everything
    is denied, because what stands in its place would have forgotten what was spent. `busy_timeout` 0: never waits for
    another process, raises `Unavailable` with `busy`.
    """

    def __init__(
        self, path: Path, schema: str, version: int, *, busy_timeout: float = 1.0, create: bool = True
    ) -> None:
        self.path = path
        self._create = create
        self._schema = schema
        self._version = version
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._identity: _Identity = ()
        self._files = tuple(str(path) + suffix for suffix in ("", "-wal", "-shm"))
        self._depth = 0
        self._doomed = False
        self._opened_once = False
        self._mark = 0

    def write(self) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction: all of it or nothing. An inner `write` joins the outer one."""
        return self._joined() if self._depth else self._transaction()

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """For single statements, outside a transaction or inside the one that is open."""
        return self._joined() if self._depth else self._guarded()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guarded() as connection:
            self._begin(connection)
            self._depth, self._doomed = 1, False
            try:
                yield connection
            finally:
                self._depth = 0
            if self._doomed:
                raise sqlite3.OperationalError("a part of the transaction failed")
            connection.execute("COMMIT")

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Wait for our turn. SQLite alone would look less and less often, and starve behind a busy process."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not _is_busy(exc) or time.monotonic() >= deadline:
                    raise
            else:
                return

    @contextmanager
    def _joined(self) -> Iterator[sqlite3.Connection]:
        assert self._connection is not None
        try:
            yield self._connection
        except _FAULTS as exc:
            self._doomed = True
            raise self._unavailable(exc) from exc
        except BaseException:
            self._doomed = True
            raise

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._ready()
        except _FAULTS as exc:
            waiting = isinstance(exc, sqlite3.OperationalError) and _is_busy(exc)
            if not waiting or self._connection is None or self._connection.in_transaction:
                self.close()
            raise self._unavailable(exc) from exc
        except BaseException:
            self.close()
            raise

    def _unavailable(self, exc: Exception) -> Unavailable:
        busy = isinstance(exc, sqlite3.OperationalError) and _is_busy(exc)
        remedy = "Check the disk, the file's owner and its rights; nothing was written."
        if busy:
            remedy = "Another process is writing; try again. Nothing was written."
        return Unavailable(f"{self.path}: {exc or type(exc).__name__}. {remedy}", busy=busy)

    def _ready(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._identify() == self._identity:
                return self._connection
            raise sqlite3.OperationalError("the file was deleted or replaced while in use")
        connection = open_wal(self.path, busy_timeout=self._busy_timeout or _OPENING, create=self._may_create)
        try:
            self._migrate(connection)
            self._recognize(connection)
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE if self._busy_timeout else 0}")
            self._identity = self._identify()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._opened_once = True
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == self._version:
            return
        if found > self._version:
            raise sqlite3.OperationalError(f"written by a newer Fulcrum (schema {found}, ours is {self._version})")
        if not self._may_create:
            raise sqlite3.OperationalError("the file was replaced by an empty one")
        connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; PRAGMA user_version = {self._version}; COMMIT;")

    @property
    def _may_create(self) -> bool:
        return self._create and not self._opened_once

    def _recognize(self, connection: sqlite3.Connection) -> None:
        """Every file has a mark that only its copies share: a new one must not pass for the one that was lost."""
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if mark == 0:
            connection.execute("BEGIN IMMEDIATE")
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
            if mark == 0:
                mark = secrets.randbelow(2**31 - 1) + 1
                connection.execute(f"PRAGMA application_id = {mark}")
            connection.execute("COMMIT")
        if self._mark not in (0, mark):
            raise sqlite3.OperationalError("the file was replaced by another one")
        self._mark = mark

    def _identify(self) -> _Identity:
        return tuple([(found.st_dev, found.st_ino) for found in map(stat, self._files)])

    def close(self) -> None:
        """Roll back what is open and let go of the file. Idempotent; the next use opens it again."""
        connection, self._connection = self._connection, None
        self._depth = 0
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
