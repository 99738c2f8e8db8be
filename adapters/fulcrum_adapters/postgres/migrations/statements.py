"""Running a step's SQL text exactly as it stands."""

from typing import Any

from alembic import op

__all__ = ["ROLES", "driver", "run"]

ROLES = ("fulcrum_app", "fulcrum_gateway", "fulcrum_ingest")


def driver() -> Any:
    """The psycopg connection of the migration that runs now."""
    return op.get_bind().connection.driver_connection


def run(text: str) -> None:
    """Statements without parameters; neither `:` nor `%` means anything in them."""
    driver().execute(text)
