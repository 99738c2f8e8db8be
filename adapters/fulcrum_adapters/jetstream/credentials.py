"""A `.creds` file: a user's JWT and the seed of its key (NKEY), with which the server's nonce is signed."""

import base64
import re
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fulcrum_mcp.errors import Invalid

__all__ = ["Credentials"]

_PART = re.compile(rb"-----BEGIN ([A-Z ]+)-----\s*([A-Za-z0-9_.=-]+)\s*-{5,6}END [A-Z ]+-{5,6}")
_SEED = 18 << 3
"""The first five bits of a seed: the letter S."""
_LENGTH = 2 + 32 + 2


class Credentials:
    """Read anew at every connection, so that a rotated file counts; nothing of it shows."""

    __slots__ = ("_jwt", "_key")

    def __init__(self, jwt: bytes, key: Ed25519PrivateKey) -> None:
        self._jwt = jwt
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises `Invalid`, never quoting the file."""
        try:
            parts = {match[1]: match[2] for match in _PART.finditer(path.read_bytes())}
        except OSError as exc:
            raise Invalid(f"nats.credentials: {path} cannot be read: {exc.strerror}") from exc
        jwt, seed = parts.get(b"NATS USER JWT"), parts.get(b"USER NKEY SEED")
        if jwt is None or seed is None:
            raise Invalid(f"nats.credentials: {path} holds no user JWT and seed; name a .creds file")
        try:
            raw = base64.b32decode(seed + b"=" * (-len(seed) % 8))
        except ValueError:
            raw = b""
        if len(raw) != _LENGTH or raw[0] & 0xF8 != _SEED or _checksum(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
            raise Invalid(f"nats.credentials: the seed in {path} is not one")
        return cls(jwt, Ed25519PrivateKey.from_private_bytes(raw[2:-2]))

    def jwt(self) -> bytearray:
        """What says who we are."""
        return bytearray(self._jwt)

    def sign(self, nonce: str) -> bytes:
        """What shows it."""
        return base64.b64encode(self._key.sign(nonce.encode()))


def _checksum(raw: bytes) -> int:
    """CRC-16/XMODEM."""
    check = 0
    for byte in raw:
        check ^= byte << 8
        for _ in range(8):
            check = (check << 1 ^ 0x1021 if check & 0x8000 else check << 1) & 0xFFFF
    return check
