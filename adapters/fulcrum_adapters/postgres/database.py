"""A few connections that many threads share; each session is one transaction, as one role, for one tenant.

What a session may see is decided by the server: `SET LOCAL ROLE` and row-level security by `fulcrum.tenant_id`. Nothing
of a session outlives it, so a pooler in transaction mode may stand between. Names in statements carry their schema:
the search path holds system catalogs only.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from fulcrum_adapters.postgres.arrays import know_arrays
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.faults import translated
from fulcrum_mcp.errors import FulcrumError, Unavailable

__all__ = ["Connection", "Database", "Role", "Session", "connect"]

Role = Literal["fulcrum_app", "fulcrum_gateway", "fulcrum_ingest"]
Session = psycopg.Connection[tuple[Any, ...]]

T = TypeVar("T")

_BEGIN = """\
BEGIN {mode};
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL statement_timeout = {limit};
SET LOCAL idle_in_transaction_session_timeout = {idle};
SET LOCAL ROLE {role};
SELECT pg_catalog.set_config('fulcrum.tenant_id', {tenant}, true),
       pg_catalog.set_config('fulcrum.platform', {platform}, true),
       CASE WHEN pg_catalog.current_setting('synchronous_commit') = 'off'
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END;
"""
_SNAPSHOT = sql.SQL("ISOLATION LEVEL REPEATABLE READ READ ONLY")
_PLAIN = sql.SQL("ISOLATION LEVEL READ COMMITTED")
_IDLE, _IDLE_READING = 10_000, 60_000
"""Milliseconds after which the server ends a transaction whose process has stopped, with the locks that it holds."""
_FAULTS = (psycopg.Error, UnicodeError)
_ENDED = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.IdleSessionTimeout)
_SHARE = 0.9
"""Of the time limit, at which the server gives a statement up by itself."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up when the server is silent for `patience` seconds, even if it is only suspended."""

    patience: float = 5.0

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Run one exchange with the server; raises `psycopg.OperationalError` when it takes too long."""
        return super().wait(gen, interval, self.patience if timeout is None else timeout)

    @property
    def silent(self) -> bool:
        """The server owes an answer."""
        return not self.closed and self.pgconn.transaction_status == TransactionStatus.ACTIVE


def connect(config: PostgresConfig, *, autocommit: bool = True) -> Connection:
    """A connection outside any pool. Raises `Unavailable`."""
    try:
        made = Connection.connect(autocommit=autocommit, prepare_threshold=None, **config.parameters())
    except (psycopg.Error, OSError, UnicodeError) as exc:
        error = exc if isinstance(exc, psycopg.Error) else psycopg.OperationalError(type(exc).__name__)
        raise translated(error, config) from None
    made.patience = config.timeout
    know_arrays(made)
    return made


class Database:
    """The pool. A connection that broke, or whose server fell silent, is closed; the next session makes a new one."""

    def __init__(self, config: PostgresConfig) -> None:
        self.config = config
        self._places = threading.BoundedSemaphore(config.pool)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def session(
        self,
        role: Role,
        tenant: str | None = None,
        *,
        snapshot: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Session]:
        """One transaction; committed at the end of the block, rolled back when it raises.

        `tenant`: whose rows are seen; "" the rows that belong to no tenant, None no row of anybody. `snapshot`: read
        only, all statements see one moment. `timeout`: seconds for each statement, where the configured ones do not
        do. Raises `Unavailable` (`doubtful` when nobody knows whether it was committed), `Conflict`, `Invalid`.
        """
        patience = timeout or self.config.timeout
        if not self._places.acquire(timeout=self.config.timeout):
            raise Unavailable(
                f"postgres {self.config.place}: all {self.config.pool} connections are in use; try again, "
                "or raise [postgres] pool.",
                busy=True,
            )
        try:
            connection = self._begin(role, tenant, patience, _SNAPSHOT if snapshot else _PLAIN)
            try:
                yield connection
                self._commit(connection)
            except _FAULTS as exc:
                raise self._fault(connection, exc) from exc
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    def _begin(self, role: Role, tenant: str | None, patience: float, mode: sql.SQL) -> Connection:
        """A connection inside a transaction. One that died while it was idle is replaced, once."""
        opening = sql.SQL(_BEGIN).format(
            mode=mode,
            limit=sql.Literal(max(int(patience * _SHARE * 1000), 1)),
            idle=sql.Literal(_IDLE_READING if mode is _SNAPSHOT else _IDLE),
            role=sql.Identifier(role),
            tenant=sql.Literal(tenant or ""),
            platform=sql.Literal("on" if tenant == "" else ""),
        )
        while True:
            connection, used = self._take()
            try:
                connection.patience = patience
                connection.execute(opening)
            except BaseException as exc:
                ended = used and not connection.silent and (connection.closed or isinstance(exc, _ENDED))
                fault = self._fault(connection, exc) if isinstance(exc, _FAULTS) else None
                self._give_back(connection)
                if fault is None:
                    raise
                if not ended:
                    raise fault from exc
                self._drop_idle()
            else:
                return connection

    def _take(self) -> tuple[Connection, bool]:
        with self._lock:
            if self._closed:
                raise Unavailable(f"postgres {self.config.place}: closed; start again.")
            if self._idle:
                return self._idle.pop(), True
        return connect(self.config), False

    def _fault(
        self, connection: Connection, exc: psycopg.Error | UnicodeError, *, committing: bool = False
    ) -> FulcrumError:
        error = exc if isinstance(exc, psycopg.Error) else psycopg.DataError("text that is not Unicode")
        fault = translated(
            error,
            self.config,
            silent=connection.silent,
            committing=committing,
            patience=connection.patience,
        )
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            connection.close()  # the next one may find the primary
        return fault

    def _commit(self, connection: Connection) -> None:
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            raise psycopg.OperationalError("a statement failed and the transaction with it")
        try:
            connection.commit()
        except psycopg.Error as exc:
            raise self._fault(connection, exc, committing=True) from exc

    def _give_back(self, connection: Connection) -> None:
        """Roll back what is open; a connection that is not at rest then is closed."""
        if not connection.closed and not connection.silent:
            with suppress(psycopg.Error):
                connection.rollback()
        at_rest = not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE
        with self._lock:
            if at_rest and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close idle connections now and the others when their sessions end. Idempotent."""
        with self._lock:
            self._closed = True
        self._drop_idle()
