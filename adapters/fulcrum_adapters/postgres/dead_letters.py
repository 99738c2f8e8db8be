"""What could not be stored, kept whole; the same thing from the same source is kept once."""

from collections.abc import Iterable
from hashlib import sha256

from fulcrum_adapters.postgres.audit_rows import clean
from fulcrum_adapters.postgres.database import Session

__all__ = ["keep"]

_WHAT = 4096
_KEEP = """
INSERT INTO fulcrum.audit_faults (source, what, body, digest)
  SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::bytea[]) AS g (source, what, body, digest)
  ORDER BY digest ON CONFLICT DO NOTHING RETURNING digest
"""


def keep(connection: Session, letters: Iterable[tuple[str, str, bytes]]) -> list[bool]:
    """(source, what is wrong, body); one without a body is the same if it says the same. Of each: whether it is new."""
    rows = [(clean(source[:_WHAT]), clean(what[:_WHAT]), body) for source, what, body in letters]
    if not rows:
        return []
    sources, whats, bodies = (list(column) for column in zip(*rows, strict=True))
    digests = [_digest(*row) for row in rows]
    found = connection.execute(_KEEP, [sources, whats, bodies, digests]).fetchall()
    fresh = {digest for (digest,) in found}
    news: list[bool] = []
    for digest in digests:
        news.append(digest in fresh)
        fresh.discard(digest)
    return news


def _digest(source: str, what: str, body: bytes) -> bytes:
    named = source.encode()
    return sha256(b"%d:%b%b" % (len(named), named, body or b"\0" + what.encode())).digest()
