"""Leadership by a session's advisory lock: the server lets go of it when the session ends, for whatever reason.

The session has a connection of its own, and the server is told to notice within seconds that nobody is at its other
end, and to end it when it says nothing: a process that is stopped (its system still answers for it) must not lead.
A pooler in transaction mode must not stand between: it would share the session.
"""

import threading
from contextlib import suppress

import psycopg
from psycopg import sql

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Connection, connect
from fulcrum_adapters.postgres.faults import translated

__all__ = ["PostgresLeadership"]

_CLASS, _OBJECT = 0x4655_4C43, 1
"""`FULC`, and the leader of the processors."""
_OPENING = """
SET application_name = 'fulcrum-leader';
SET idle_session_timeout = {silence};
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 2;
SET tcp_user_timeout = 15000;
"""
_TAKE = "SELECT pg_catalog.pg_try_advisory_lock(%s, %s)"


class PostgresLeadership:
    """A `Leadership`. It is lost with its connection, which `acquire` finds out, and when `acquire` is not called."""

    def __init__(self, config: PostgresConfig, silence: float = 15.0) -> None:
        """`silence`: seconds without a call of `acquire` after which another one may lead."""
        self._config = config
        self._opening = sql.SQL(_OPENING).format(silence=sql.Literal(round(silence * 1000)))
        self._lock = threading.Lock()
        self._held: Connection | None = None

    def acquire(self) -> bool:
        """See `Leadership`. Asks the server each time, so True means that it led a moment ago."""
        with self._lock:
            if self._held is not None:
                try:
                    self._held.execute("SELECT 1")
                except psycopg.Error:
                    self._let_go()  # whoever leads now, it takes a new session to know
                else:
                    return True
            connection = connect(self._config)
            try:
                connection.execute(self._opening)
                row = connection.execute(_TAKE, (_CLASS, _OBJECT)).fetchone()
            except psycopg.Error as exc:
                silent = connection.silent
                connection.close()
                raise translated(exc, self._config, silent=silent) from exc
            if row is None or not row[0]:
                connection.close()
                return False
            self._held = connection
            return True

    def release(self) -> None:
        """See `Leadership`."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(psycopg.Error):
                held.close()
