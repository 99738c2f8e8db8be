"""Sealed tokens: what a client carries for us and can neither read, change nor use for another purpose.

AES-256-GCM; the first key seals, all keys open, so that keys can be rotated.
"""

import hashlib
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fulcrum_mcp.errors import Invalid

__all__ = ["Sealer"]

_PREFIX: Final = "f1."
_NONCE: Final = 12


class Sealer:
    """Seals and opens; keys are secrets of at least 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < 32 for key in keys):  # noqa: PLR2004 - said in the message
            raise Invalid("state keys: at least one key of 32 bytes or more is needed; see FULCRUM_STATE_KEYS")
        derived = [hashlib.sha256(b"fulcrum/seal/v1" + key).digest() for key in keys]
        self._keys = {hashlib.sha256(b"id" + key).digest()[:4]: AESGCM(key) for key in derived}
        self._first = next(iter(self._keys))

    def seal(self, purpose: bytes, content: bytes) -> str:
        """A token for `content`, URL-safe, good for this purpose only."""
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._first].encrypt(nonce, content, purpose)
        return _PREFIX + urlsafe_b64encode(self._first + nonce + sealed).decode().rstrip("=")

    def unseal(self, purpose: bytes, token: str) -> bytes | None:
        """What was sealed; None for anything that was not sealed here for this purpose."""
        if not token.startswith(_PREFIX) or len(token) > 1 << 20:
            return None
        text = token[len(_PREFIX) :]
        try:
            content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return None
        if urlsafe_b64encode(content).decode().rstrip("=") != text:
            return None
        key = self._keys.get(content[:4])
        if key is None or len(content) < 4 + _NONCE + 16:
            return None
        try:
            return key.decrypt(content[4 : 4 + _NONCE], content[4 + _NONCE :], purpose)
        except InvalidTag:
            return None
