"""The installation's Postgres: from settings to connections, and its schema's state."""

from typing import TYPE_CHECKING

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings

if TYPE_CHECKING:
    from fulcrum_adapters.postgres.config import PostgresConfig
    from fulcrum_adapters.postgres.database import Database
    from fulcrum_adapters.postgres.upgrade import SchemaState

__all__ = ["database_state", "open_database", "postgres_config", "upgrade_database"]


def postgres_config(settings: Settings) -> "PostgresConfig":
    """Where the database is. Raises `Invalid` where the settings name none."""
    from fulcrum_adapters.postgres.config import PostgresConfig  # noqa: PLC0415 (for the full mode only)

    if settings.postgres is None:
        raise Invalid("no database is configured; set FULCRUM_POSTGRES_URL, or url in [postgres] of fulcrum.toml.")
    given = settings.postgres
    return PostgresConfig(given.url.get_secret_value(), pool=given.pool, timeout=given.timeout)


def database_state(settings: Settings) -> "SchemaState":
    """What is there. Raises `Invalid`, `Unavailable`."""
    config = postgres_config(settings)
    from fulcrum_adapters.postgres.upgrade import state  # noqa: PLC0415 (SQLAlchemy takes half a second)

    return state(config)


def upgrade_database(settings: Settings, *, patience: float = 60.0) -> "tuple[SchemaState, SchemaState]":
    """Bring the schema up to date; before and after. Raises `Invalid`, `Unavailable`."""
    config = postgres_config(settings)
    from fulcrum_adapters.postgres.upgrade import upgrade  # noqa: PLC0415 (same)

    return upgrade(config, patience=patience)


def open_database(settings: Settings) -> "Database":
    """The pool, over a schema that is up to date: brought there first unless `migrate = false`. Close it.

    Raises `Invalid`, `Unavailable`.
    """
    config = postgres_config(settings)
    from fulcrum_adapters.postgres.database import Database  # noqa: PLC0415 (for the full mode only)
    from fulcrum_adapters.postgres.upgrade import check, upgrade  # noqa: PLC0415 (same)

    if settings.postgres is not None and settings.postgres.migrate:
        upgrade(config)
    else:
        check(config)
    return Database(config)
