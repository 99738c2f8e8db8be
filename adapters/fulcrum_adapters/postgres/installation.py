"""The installation that a database belongs to: its id, made once, and a check of the key that all of it must have."""

from typing import Final

from fulcrum_adapters.postgres.database import Database
from fulcrum_mcp.errors import Invalid, Unavailable

__all__ = ["join", "rekey"]

_FIRST: Final = "UPDATE fulcrum.installation SET key_check = %s WHERE key_check IS NULL"
_READ: Final = "SELECT id::text, key_check FROM fulcrum.installation"
_REKEY: Final = "UPDATE fulcrum.installation SET key_check = %s WHERE key_check IS DISTINCT FROM %s"


def join(database: Database, key_check: str) -> str:
    """The installation's id; whoever comes first says which key it has.

    Raises `Invalid` for another key, and `Unavailable`.
    """
    with database.session("fulcrum_gateway") as session:
        session.execute(_FIRST, (key_check,))
        row = session.execute(_READ).fetchone()
    place = database.config.place
    if row is None:
        raise Unavailable(f"postgres {place}: the row of fulcrum.installation is gone; restore it from a backup")
    found, known = row
    if known != key_check:
        raise Invalid(
            f"postgres {place}: this installation has another FULCRUM_AUDIT_MAC_KEY than is given here, and what one "
            "says over NATS the others would not believe. Set the same in every server and processor; if it was "
            "replaced on purpose, stop all of them and run fulcrum db rekey with the new one"
        )
    return str(found)


def rekey(database: Database, key_check: str) -> bool:
    """From now on the installation has this key; False: it had it already. Raises `Unavailable`."""
    with database.session("fulcrum_app", "") as session:
        return session.execute(_REKEY, (key_check, key_check)).rowcount == 1
