"""The installation's Postgres: from settings to connections, and its schema's state."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import structlog

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings

if TYPE_CHECKING:
    from fulcrum_adapters.postgres.config import PostgresConfig
    from fulcrum_adapters.postgres.database import Database
    from fulcrum_adapters.postgres.upgrade import SchemaState

__all__ = ["database_state", "open_database", "postgres_config", "upgrade_database"]

_log = structlog.get_logger("fulcrum.postgres")


def postgres_config(settings: Settings) -> "PostgresConfig":
    """Where the database is. Raises `Invalid` where the settings name none."""
    from fulcrum_adapters.postgres.config import PostgresConfig  # noqa: PLC0415 (for the full mode only)

    if settings.postgres is None:
        raise Invalid("no database is configured; set FULCRUM_POSTGRES_URL, or url in [postgres] of fulcrum.toml.")
    given = settings.postgres
    return PostgresConfig(
        given.url.get_secret_value(),
        pool=given.pool,
        timeout=given.timeout,
        ca=given.ca,
        cert=given.cert,
        key=given.key,
    )


def database_state(settings: Settings) -> "SchemaState":
    """What is there. Raises `Invalid`, `Unavailable`."""
    config = postgres_config(settings)
    from fulcrum_adapters.postgres.upgrade import state  # noqa: PLC0415 (SQLAlchemy takes half a second)

    return state(config)


def upgrade_database(
    settings: Settings, told: Callable[[str], None], *, patience: float = 60.0
) -> "tuple[SchemaState, SchemaState]":
    """Bring the schema up to date; before and after. `told` how far it is. Raises `Invalid`, `Unavailable`."""
    config = postgres_config(settings)
    from fulcrum_adapters.postgres.upgrade import upgrade  # noqa: PLC0415 (same)

    return upgrade(config, patience=patience, told=told)


def open_database(settings: Settings) -> "Database":
    """The pool, over a schema that is up to date: brought there first unless `migrate = false`. Close it.

    Warns, once, where the way there is not as safe as it looks. Raises `Invalid`, `Unavailable`.
    """
    config = postgres_config(settings)
    if config.unverified is not None:
        _warn(config.place, config.unverified)
    from fulcrum_adapters.postgres.database import Database  # noqa: PLC0415 (for the full mode only)
    from fulcrum_adapters.postgres.upgrade import check, upgrade  # noqa: PLC0415 (same)

    if settings.postgres is not None and settings.postgres.migrate:
        upgrade(config, told=lambda what: _log.info("postgres.upgrade", place=config.place, what=what))
    else:
        check(config)
    return Database(config)


@cache
def _warn(place: str, risk: str) -> None:
    remedy = (
        "write sslmode=verify-full into postgres.url, with postgres.ca where the system does not trust its CA; or "
        "sslmode=disable where nobody else is on that network"
    )
    _log.warning("postgres.unverified", place=place, reason=f"{risk}; {remedy}")
