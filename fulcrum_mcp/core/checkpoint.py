"""What is signed about a trail: checkpoints while it grows, a manifest at the end of an export.

Both are one line of JSON whose last member, `signature`, is the Ed25519 signature of the line without that member. A
checkpoint speaks of one tenant: the chains that grew since the checkpoint before, each with its RFC 6962 root, and one
root (`forest`) over all chains of the tenant, so that none can vanish. Checkpoints are numbered and linked by `prev`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fulcrum_mcp.core.audit import GENESIS
from fulcrum_mcp.core.merkle import Frontier, root

__all__ = [
    "CHECKPOINT",
    "FORMAT",
    "MANIFEST",
    "ChainState",
    "Sealed",
    "Sign",
    "checkpoint_line",
    "forest_root",
    "line_hash",
    "manifest_line",
    "open_sealed",
]

CHECKPOINT = "dev.fulcrum.audit.checkpoint"
MANIFEST = "dev.fulcrum.audit.manifest"
FORMAT = 1

_MARK = b',"signature":"'
_TAIL = len(_MARK) + 128 + len(b'"}')

Sign = Callable[[bytes], bytes]


@dataclass(slots=True)
class ChainState:
    """A chain as far as it is known: contiguous, every link checked. `signed` is its size in the last checkpoint."""

    chain: str
    tenant: str
    head: str = GENESIS
    tree: Frontier = field(default_factory=Frontier)
    signed: int = 0

    @property
    def size(self) -> int:
        """How many records."""
        return self.tree.size

    def add(self, digest: str) -> None:
        """Append one record by its hash."""
        self.tree.add(bytes.fromhex(digest))
        self.head = digest

    def as_fields(self) -> dict[str, Any]:
        """As it stands in a checkpoint or manifest."""
        return {"chain": self.chain, "size": self.size, "head": self.head, "root": self.tree.root().hex()}


def forest_root(states: Iterable[ChainState]) -> str:
    """One root over all chains: RFC 6962 over `<chain> <size> <root>`, ordered by chain."""
    ordered = sorted(states, key=lambda state: state.chain)
    return root([json.dumps([s.chain, s.size, s.tree.root().hex()]).encode("ascii") for s in ordered]).hex()


def line_hash(line: bytes) -> str:
    """What the next checkpoint's `prev` says of this one."""
    return hashlib.sha256(line).hexdigest()


def checkpoint_line(
    tenant: str, number: int, prev: str, states: Iterable[ChainState], *, time: str, key: str, sign: Sign
) -> bytes:
    """Sign what all chains of a tenant hold now; `states` are all of them. The caller marks them as signed."""
    everything = sorted((state for state in states if state.size), key=lambda state: state.chain)
    return _seal(
        {
            "type": CHECKPOINT,
            "format": FORMAT,
            "tenant": tenant,
            "number": number,
            "time": time,
            "prev": prev,
            "records": sum(state.size for state in everything),
            "chains": [state.as_fields() for state in everything if state.size != state.signed],
            "forest": forest_root(everything),
            "key": key,
        },
        sign,
    )


def manifest_line(
    states: Iterable[ChainState], checkpoints: int, digest: str, *, time: str, key: str, sign: Sign
) -> bytes:
    """Sign a whole export; `digest` is the SHA-256 of every byte before this line."""
    everything = sorted(states, key=lambda state: (state.tenant, state.chain))
    return _seal(
        {
            "type": MANIFEST,
            "format": FORMAT,
            "time": time,
            "records": sum(state.size for state in everything),
            "checkpoints": checkpoints,
            "chains": [state.as_fields() for state in everything],
            "digest": digest,
            "key": key,
        },
        sign,
    )


def _seal(fields: Mapping[str, Any], sign: Sign) -> bytes:
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return b'%b,"signature":"%b"}' % (body[:-1], sign(body).hex().encode("ascii"))


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed line, taken apart; the signature is not yet checked."""

    fields: Mapping[str, Any]
    message: bytes
    signature: bytes


def open_sealed(line: bytes) -> Sealed | None:
    """None when the line does not have the form of a signed line."""
    mark = len(line) - _TAIL
    if mark < 1 or line[mark : mark + len(_MARK)] != _MARK or not line.endswith(b'"}'):
        return None
    message = line[:mark] + b"}"
    try:
        fields = json.loads(message)
        signature = bytes.fromhex(line[mark + len(_MARK) : -2].decode("ascii"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or len(signature) != 64:  # noqa: PLR2004 - RFC 8032: 64 bytes
        return None
    return Sealed(fields, message, signature)
