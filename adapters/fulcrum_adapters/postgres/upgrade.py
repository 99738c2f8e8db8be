"""Bringing the schema up to date: forward only, all steps in one transaction, behind a lock that replicas share."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection as Bind
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Connection, connect
from fulcrum_adapters.postgres.faults import translated
from fulcrum_mcp.errors import FulcrumError, Unavailable

__all__ = ["SchemaState", "check", "state", "upgrade"]

_LOCK = 0x66756C6372756D
"""`fulcrum` in ASCII, the number of the advisory lock."""
_PAUSE = 0.1
_OLDEST = 160_000
_TABLE = "schema_revision"
_STRANGERS = """
SELECT n.nspname, r.rolname FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
  WHERE n.nspname IN ('fulcrum', 'metrics') AND NOT r.rolsuper
    AND NOT pg_catalog.pg_has_role(current_user, n.nspowner, 'MEMBER')
"""


class SchemaState(NamedTuple):
    """Where a database stands; None: nothing of ours is there."""

    found: str | None
    latest: str
    server: str
    """The server's version."""

    @property
    def current(self) -> bool:
        """It is as this Fulcrum needs it."""
        return self.found == self.latest


def state(config: PostgresConfig) -> SchemaState:
    """What is there. Raises `Unavailable`, also where the schema is newer than this Fulcrum."""
    connection = connect(config)
    with closing(connection):
        try:
            return _look(connection, config)
        except psycopg.Error as exc:
            raise translated(exc, config, silent=connection.silent) from exc


def check(config: PostgresConfig) -> None:
    """Raises `Unavailable` unless the schema is the one that this Fulcrum needs."""
    found = state(config)
    if not found.current:
        raise Unavailable(
            f"postgres {config.place}: the schema is {found.found or 'missing'}, this Fulcrum needs {found.latest}; "
            "run fulcrum db upgrade, or set [postgres] migrate = true."
        )


Told = Callable[[str], None]
"""Is told, in a few words, how far an upgrade is; at nothing to do it is told nothing."""


def _nobody(_: str) -> None:
    pass


def upgrade(config: PostgresConfig, *, patience: float = 60.0, told: Told = _nobody) -> tuple[SchemaState, SchemaState]:
    """Do what is missing, all of it or nothing; what was there before, and what is there now.

    `patience`: seconds for each statement, and for another process that does the same. Raises `Unavailable`.
    """
    connection = connect(config, autocommit=False)
    with closing(connection):
        try:
            before = _look(connection, config)
            _see_owners(connection)
            if before.current:
                return before, before
            connection.rollback()
            connection.patience = patience
            told(f"the schema is {before.found or 'empty'}, bringing it to {before.latest}")
            with _bound(connection) as bind:
                return _upgrade(connection, bind, config, patience, told)
        except (DBAPIError, psycopg.Error) as exc:
            raise _fault(exc, connection, config) from exc
        except Unavailable as exc:
            said = str(exc)
            raise Unavailable(said if said.startswith("postgres ") else f"postgres {config.place}: {said}") from exc


@contextmanager
def _bound(connection: Connection) -> Iterator[Bind]:
    """Our connection as SQLAlchemy's, in a transaction that only we commit; closed in the end."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connection, poolclass=NullPool, use_native_hstore=False
    )
    bind = engine.connect()
    try:
        bind.begin()
        yield bind
    finally:
        bind.invalidate()  # without another word to a server that may be silent
        bind.close()


def _upgrade(
    connection: Connection, bind: Bind, config: PostgresConfig, patience: float, told: Told
) -> tuple[SchemaState, SchemaState]:
    """One transaction, which also holds the lock."""
    try:
        connection.execute("SET LOCAL statement_timeout = 0")
        _wait_for_lock(connection, config, patience, told)
        before = _look(connection, config)
        _see_owners(connection)  # again: nobody makes it now but who holds the lock, or a stranger
        if not before.current:
            _run(connection, bind, told)
            _see_owners(connection)
        connection.commit()
    except (DBAPIError, psycopg.Error) as exc:
        raise _fault(exc, connection, config) from exc
    return before, before._replace(found=before.latest)


def _see_owners(connection: Connection) -> None:
    """Whose schema it is may drop and replace what is in it, whoever made that. Raises `Unavailable`."""
    found = connection.execute(_STRANGERS).fetchone()
    if found is not None:
        raise Unavailable(
            f'the schema {found[0]} belongs to the role "{found[1]}", who could replace everything in it; see what it '
            "holds, then drop it, or as a superuser make it the property of the user in postgres.url "
            f"(ALTER SCHEMA {found[0]} OWNER TO ...). Nothing was changed."
        )


def _run(connection: Connection, bind: Bind, told: Told) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS fulcrum")
    connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    scripts = _scripts()

    def steps(found: Any, _: Any) -> Any:
        return scripts._upgrade_revs("head", found)  # noqa: SLF001 (Alembic's recipe for a caller's connection)

    def done(*_: Any, **given: Any) -> None:  # Alembic names what it gives
        told(f"{given['step'].up_revision_id} is done")

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(
            connection=bind, version_table=_TABLE, version_table_schema="fulcrum", on_version_apply=done
        )
        environment.run_migrations()


def _fault(exc: DBAPIError | psycopg.Error, connection: Connection, config: PostgresConfig) -> FulcrumError:
    error = exc.orig if isinstance(exc, DBAPIError) else exc
    known = error if isinstance(error, psycopg.Error) else psycopg.OperationalError(type(exc).__name__)
    return translated(known, config, silent=connection.silent, patience=connection.patience)


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _look(connection: Connection, config: PostgresConfig) -> SchemaState:
    scripts = _scripts()
    latest = scripts.get_current_head()
    assert latest is not None
    if connection.info.server_version < _OLDEST:
        version = connection.info.parameter_status("server_version")
        raise Unavailable(f"postgres {config.place}: version {version} is too old; Fulcrum needs 16 or newer.")
    (there,) = connection.execute("SELECT to_regclass('fulcrum.schema_revision') IS NOT NULL").fetchone() or (False,)
    found = None
    if there:
        row = connection.execute("SELECT version_num FROM fulcrum.schema_revision").fetchone()
        found = str(row[0]) if row else None
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise Unavailable(
            f"postgres {config.place}: the schema is {found}, written by a newer Fulcrum (this one knows {latest}); "
            "start that one. Nothing was changed."
        )
    return SchemaState(found, latest, connection.info.parameter_status("server_version") or "")


def _wait_for_lock(connection: Connection, config: PostgresConfig, patience: float, told: Told) -> None:
    """Until the end of our transaction nobody else upgrades this database."""
    deadline, waits = time.monotonic() + patience, False
    while True:
        row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK]).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"postgres {config.place}: another process has been upgrading it for {patience:.0f} s; "
                "wait for it to end, or see what it does."
            )
        if not waits:
            told(f"another process is upgrading it; waiting up to {patience:.0f} s for it to end")
        waits = True
        time.sleep(_PAUSE)
