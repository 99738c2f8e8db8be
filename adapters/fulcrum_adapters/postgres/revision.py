"""The number that triggers move with each change of the configuration."""

from fulcrum_adapters.postgres.database import Session
from fulcrum_mcp.errors import Unavailable

__all__ = ["read_revision"]


def read_revision(session: Session) -> int:
    """As this session sees it. Raises `Unavailable` when somebody has removed it."""
    row = session.execute("SELECT value FROM fulcrum.revision").fetchone()
    if row is None:
        raise Unavailable("postgres: table fulcrum.revision is empty; restore it from a backup.")
    return int(row[0])
