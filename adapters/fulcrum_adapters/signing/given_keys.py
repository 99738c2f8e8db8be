"""Keys that the environment gives, so that all gateways and processors of an installation have the same ones.

What is not given comes from the data folder, where it is made if it is not there. Nothing that was given is written.
"""

from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fulcrum_adapters.signing.audit_keys import AuditKeys, PublicKey, kept_secret
from fulcrum_mcp.errors import Invalid

__all__ = ["GivenKeys", "nats_key"]

_MAKE = "make one with `openssl genpkey -algorithm ed25519`"
_INFO = b"fulcrum audit mac\0"
_NATS = b"fulcrum nats\0"
_LEAST = 32


class GivenKeys(PublicKey):
    """A `Signer`, and each tenant's MAC key: HKDF-SHA-256 (RFC 5869) of the master, no salt, the tenant in its info.

    `signing_pem` is FULCRUM_AUDIT_SIGNING_KEY, `mac_master` FULCRUM_AUDIT_MAC_KEY. Raises `Invalid`, `Unavailable`.
    """

    def __init__(self, signing_pem: str | None, mac_master: str | None, folder: Path) -> None:
        self._folder = folder
        self._macs: dict[str, bytes] = {}
        self._master = None if mac_master is None else _master(mac_master)
        self._private = None if signing_pem is None else _private(signing_pem)
        super().__init__(self._kept.public if self._private is None else self._private.public_key())

    @cached_property
    def _kept(self) -> AuditKeys:
        return AuditKeys(self._folder)

    @property
    def public_pem(self) -> bytes:
        """What to hand to those who verify: the public half, PEM."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return self._kept.sign(message) if self._private is None else self._private.sign(message)

    def mac_key(self, tenant: str) -> bytes:
        """The tenant's key for `core.mac`; 32 bytes."""
        if self._master is None:
            return self._kept.mac_key(tenant)
        key = self._macs.get(tenant)
        if key is None:
            key = self._macs[tenant] = _derived(self._master, _INFO + tenant.encode("utf-8", "surrogatepass"))
        return key

    def __repr__(self) -> str:
        return f"GivenKeys({self.key_id})"


def nats_key(mac_master: str | None, folder: Path) -> bytes:
    """What Fulcrum says over NATS is sealed with it; 32 bytes, of FULCRUM_AUDIT_MAC_KEY, else a file of the folder.

    Raises `Invalid`, `Unavailable`.
    """
    return kept_secret(folder / "nats.key") if mac_master is None else _derived(_master(mac_master), _NATS)


def _master(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < _LEAST:
        raise Invalid(
            f"FULCRUM_AUDIT_MAC_KEY is shorter than {_LEAST} characters; make one with `openssl rand -hex 32`"
        )
    return raw


def _derived(master: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, None, info).derive(master)


def _private(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid(f"FULCRUM_AUDIT_SIGNING_KEY is not a private key in PEM form; {_MAKE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid(f"FULCRUM_AUDIT_SIGNING_KEY is not an Ed25519 key; {_MAKE}")
    return key
