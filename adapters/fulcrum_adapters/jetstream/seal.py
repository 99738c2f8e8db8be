"""Seals on what Fulcrum says over NATS: without the key nobody can say it, nor change what was said.

A seal is HMAC-SHA-256 (RFC 2104) of what kind of thing it is on, and of each part of that with its length before it, so
that no two things have the same bytes. A body counts by its SHA-256. What a seal does not say is when: what was said
once may be said again by anybody, so whoever hears it must be able to hear it twice. A parcel is stored once however
often it comes; a confirmation of old says less than a later one, and the larger number holds.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from fulcrum_mcp.errors import Invalid

__all__ = ["NOT_OURS", "SEAL", "Seal", "id_of"]

SEAL: Final = "Fulcrum-Seal"
"""The header that a seal stands in."""
NOT_OURS: Final = (
    "its seal is missing or does not fit: somebody else said it, it was changed on its way, or FULCRUM_AUDIT_MAC_KEY, "
    "which must be the same in every server and processor, is not"
)
_DOMAIN: Final = b"fulcrum nats 1\0"
_LEAST: Final = 32
_TAIL: Final = 16
"""Characters of a seal that make a message's name one that nobody can guess, and so take in advance."""


class Seal:
    """Makes and checks seals with the key that all servers and processors of an installation have. For any thread."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < _LEAST:
            raise Invalid(f"the key that seals what is said over NATS is shorter than {_LEAST} bytes")
        self._key = key

    def _on(self, kind: str, *parts: str | bytes) -> str:
        raw = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in (kind, *parts)]
        said = b"".join(b"%b%b" % (len(part).to_bytes(8, "big"), part) for part in raw)
        return hmac.digest(self._key, _DOMAIN + said, "sha256").hex()

    def letter(self, subject: str, name: str, body: bytes, *, cut: bool = False) -> str:
        """On a message of the audit stream; `cut`: its body speaks of a parcel instead of being one."""
        return self._on("pieces" if cut else "parcel", subject, name, hashlib.sha256(body).digest())

    def fits(self, subject: str, headers: Mapping[str, str] | None, body: bytes, *, cut: bool = False) -> bool:
        """Is it a message that `letter` was made for, under the name that `id_of` gave it?"""
        given = headers or {}
        name = given.get("Nats-Msg-Id", "").rpartition(":")[0]
        seal = self.letter(subject, name, body, cut=cut)
        return _same(given.get(SEAL), seal) and _same(given.get("Nats-Msg-Id"), id_of(name, seal))

    def place(self, name: str, digest: str, size: int) -> str:
        """Where the pieces of a parcel lie, as a token that nobody can guess before they lie there."""
        return self._on("place", name, digest, str(size))[:32]

    def piece(self, parcel: str, number: int) -> str:
        """The place of one piece among them: who has seen the first cannot be at the next one before us."""
        return self._on("piece", parcel, str(number))[:32]

    def stored(self, chain: str, seq: int) -> str:
        """On a confirmation: the archive has the chain up to there."""
        return self._on("stored", chain, str(seq))

    def confirms(self, headers: Mapping[str, str] | None, chain: str, seq: int) -> bool:
        """Is it a confirmation that `stored` was made for?"""
        return _same((headers or {}).get(SEAL), self.stored(chain, seq))

    @property
    def check(self) -> str:
        """Tells this key from another one, and nothing else."""
        return self._on("check")[:_TAIL]

    def __repr__(self) -> str:
        return "Seal()"


def id_of(name: str, seal: str) -> str:
    """What a duplicate of a message is known by: who does not have the seal cannot be there first."""
    return f"{name}:{seal[:_TAIL]}"


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
