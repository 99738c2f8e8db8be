"""Parcels larger than one message: their pieces lie in a stream of their own, a message says where.

Several processors share the messages of the audit stream, so pieces among them would be scattered; this way whoever
gets the message that speaks of the parcel can fetch all of it. That message is sealed and has the digest of the whole.
Where each piece lies nobody can guess without the key, and of several messages there the first counts: it is ours.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from fulcrum_adapters.jetstream.acks import MESSAGE_OVERHEAD, Letter
from fulcrum_adapters.jetstream.connection import Connection
from fulcrum_adapters.jetstream.seal import SEAL, Seal, id_of
from fulcrum_adapters.jetstream.subjects import piece_subject
from fulcrum_mcp.errors import Invalid

__all__ = ["HEADER", "LOST", "collect", "cut", "discard"]

HEADER: Final = "Fulcrum-Pieces"
"""Marks a message whose body speaks of a parcel instead of being one."""
LOST: Final = "its pieces are gone, or are not what was sealed"
MOST_BYTES: Final = 160 << 20
"""Two frames of the largest size, and then some."""
_LONGEST: Final = 64
"""Characters of a parcel's token; ours have half of it."""


def cut(subject: str, body: bytes, name: str, max_payload: int, seal: Seal) -> tuple[list[Letter], Letter]:
    """The pieces of a body, which must all be there before the message that speaks of them is sent.

    Raises `Invalid` for what is too large even so.
    """
    size = max_payload - MESSAGE_OVERHEAD
    if len(body) > MOST_BYTES or size < MESSAGE_OVERHEAD:
        raise Invalid(
            f"a parcel of {len(body)} bytes is too large for NATS with max_payload {max_payload};"
            " set max_payload to 8MB there"
        )
    digest = hashlib.sha256(body).hexdigest()
    parcel = seal.place(name, digest, size)
    pieces: list[Letter] = []
    for number, start in enumerate(range(0, len(body), size)):
        piece = seal.piece(parcel, number)
        pieces.append(Letter(piece_subject(parcel, piece), body[start : start + size], "FULCRUM_PIECES", piece))
    about = {"parcel": parcel, "pieces": len(pieces), "size": len(body), "sha256": digest}
    told = json.dumps(about).encode()
    sealed = seal.letter(subject, name, told, cut=True)
    headers = {HEADER: str(len(pieces)), SEAL: sealed}
    return pieces, Letter(subject, told, "FULCRUM_AUDIT", id_of(name, sealed), headers)


def _about(body: bytes) -> Mapping[str, object] | None:
    try:
        about = json.loads(body)
        parcel, pieces = about["parcel"], about["pieces"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    sound = (
        isinstance(parcel, str)
        and len(parcel) <= _LONGEST
        and parcel.isalnum()
        and parcel.isascii()
        and type(pieces) is int
        and 0 < pieces <= MOST_BYTES // MESSAGE_OVERHEAD
    )
    return about if sound else None


async def collect(connection: Connection, body: bytes, seal: Seal | None) -> bytes | None:
    """The parcel that a message speaks of; None when it is not whole there. Raises `Unavailable`.

    Without a seal, for a message that is not believed: what lies there, as long as it came in order and alone.
    """
    about = _about(body)
    if about is None:
        return None
    parcel, number = str(about["parcel"]), int(str(about["pieces"]))
    parts: list[bytes] = []
    size, seq = 0, 1
    for each in range(number):
        subject = piece_subject(parcel, "*" if seal is None else seal.piece(parcel, each))
        answer = await connection.ask("$JS.API.DIRECT.GET.FULCRUM_PIECES", {"seq": seq, "next_by_subj": subject})
        found = (answer.headers or {}).get("Nats-Sequence")
        if found is None:
            return None
        if seal is None:
            seq = int(found) + 1
        parts.append(answer.data)
        size += len(answer.data)
        if size > MOST_BYTES:
            return None
    whole = b"".join(parts)
    digest = await asyncio.to_thread(lambda: hashlib.sha256(whole).hexdigest())
    return whole if digest == about.get("sha256") else None


async def discard(connection: Connection, body: bytes) -> None:
    """The parcel is stored: its pieces may go. Raises `Unavailable`; what stays goes with its age."""
    about = _about(body)
    if about is not None:
        subject = piece_subject(str(about["parcel"]), "*")
        await connection.api("STREAM.PURGE.FULCRUM_PIECES", {"filter": subject})
