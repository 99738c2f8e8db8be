"""What the leader of the processors does for the metrics now and then."""

from fulcrum_adapters.postgres.database import Database

__all__ = ["keep_up"]

_PATIENCE = 60.0


def keep_up(database: Database) -> tuple[int, int]:
    """Make the partitions of the days to come, drop those past their time; how many of each. Raises `Unavailable`."""
    with database.session("fulcrum_ingest", timeout=_PATIENCE) as session:
        row = session.execute("SELECT made, dropped FROM metrics.maintain()").fetchone()
    return (0, 0) if row is None else (row[0], row[1])
