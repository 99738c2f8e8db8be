"""Certificates for tests, made in a moment: an authority, and what it signs, right or wrong in one way each."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["DAY", "HERE", "Authority", "Pair", "self_signed"]

HERE = ("127.0.0.1", "localhost")
DAY = timedelta(days=1)


class Pair(NamedTuple):
    """PEM files of a certificate and of its key, which only its owner may read."""

    cert: Path
    key: Path


class Authority:
    """A CA of its own. `ca` is the file that those name who believe it."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        made = _begun(self._name, self._name, self._key.public_key(), timedelta()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.ca.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, hosts: tuple[str, ...] = HERE, *, since: timedelta = timedelta()) -> Pair:
        """A certificate for these hosts, whose two days around now are moved by `since`."""
        key = ec.generate_private_key(ec.SECP256R1())
        begun = _begun(_name(name), self._name, key.public_key(), since)
        return _written(self._folder, name, _for(begun, hosts).sign(self._key, hashes.SHA256()), key)

    def expired(self, name: str = "expired") -> Pair:
        """One that ended yesterday."""
        return self.issue(name, since=-2 * DAY)


def self_signed(folder: Path, name: str = "self") -> Pair:
    """One that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    begun = _begun(_name(name), _name(name), key.public_key(), timedelta())
    return _written(folder, name, _for(begun, HERE).sign(key, hashes.SHA256()), key)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) + since
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _for(begun: x509.CertificateBuilder, hosts: tuple[str, ...]) -> x509.CertificateBuilder:
    return begun.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _written(folder: Path, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.cert.write_bytes(made.public_bytes(Encoding.PEM))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair
