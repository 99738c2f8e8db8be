"""The key files of a data folder: `audit.key` (0600), `audit.pub`, and one `mac-<tenant>.key` a tenant (0600).

Several processes may make them at the same moment: a key is written whole to a file of its own and then linked to its
name, which only one of them can do; all read back what stands there.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fulcrum_mcp.errors import Invalid, Unavailable

__all__ = ["AuditKeys", "PublicKey", "kept_secret"]

_MAC_BYTES = 32


class PublicKey:
    """What a verifier needs: the public half, and the name it goes by."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self.public = key
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a PEM file. Raises `Invalid`."""
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as exc:
            raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise Invalid(
                f"{path} is not a public key in PEM form; it is called keys/audit.pub in the data folder"
            ) from exc
        if not isinstance(key, Ed25519PublicKey):
            raise Invalid(
                f"{path} is not an Ed25519 public key; the audit trail's is keys/audit.pub in the data folder"
            )
        return cls(key)

    def check(self, message: bytes, signature: bytes) -> bool:
        """See `Signer`."""
        try:
            self.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class AuditKeys(PublicKey):
    """A `Signer` over a folder of keys, which are made when they are not there. Raises `Unavailable`, `Invalid`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._macs: dict[str, bytes] = {}
        private = _load_or_make(folder / "audit.key", _new_private_key)
        try:
            key = load_pem_private_key(private, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise Invalid(f"{folder / 'audit.key'} is not a private key in PEM form; restore it from a copy") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise Invalid(f"{folder / 'audit.key'} is not an Ed25519 key; restore it from a copy")
        self._private = key
        super().__init__(key.public_key())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if _load_or_make(folder / "audit.pub", lambda: public, mode=0o644) != public:
            raise Invalid(
                f"{folder / 'audit.pub'} is not the public half of audit.key; restore both, or remove audit.pub"
            )

    @property
    def public_path(self) -> Path:
        """What to hand to those who verify."""
        return self._folder / "audit.pub"

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return self._private.sign(message)

    def mac_key(self, tenant: str) -> bytes:
        """The tenant's key for `core.mac`; 32 bytes."""
        key = self._macs.get(tenant)
        if key is None:
            plain = re.fullmatch(r"[a-z0-9_-]{1,64}", tenant)
            name = tenant if plain else "x." + hashlib.sha256(tenant.encode()).hexdigest()[:32]
            key = self._macs[tenant] = kept_secret(self._folder / f"mac-{name}.key")
        return key

    def __repr__(self) -> str:
        return f"AuditKeys({self.key_id})"


def kept_secret(path: Path) -> bytes:
    """32 bytes from a file, which is made if it is not there. Raises `Unavailable`, `Invalid`."""
    key = _load_or_make(path, lambda: secrets.token_bytes(_MAC_BYTES))
    if len(key) != _MAC_BYTES:
        raise Invalid(f"{path} is not {_MAC_BYTES} bytes; restore it from a copy")
    return key


def _new_private_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_or_make(path: Path, make: Callable[[], bytes], mode: int = 0o600) -> bytes:
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            own = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(make())
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(own, path)
            finally:
                own.unlink()
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return path.read_bytes()
    except OSError as exc:
        raise Unavailable(f"the key {path} cannot be read or made: {exc.strerror}") from exc
