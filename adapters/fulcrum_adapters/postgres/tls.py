"""What libpq is told about TLS: as the URL says, except that verifying is complete or is not claimed.

libpq itself falls back to clear text where nothing is said, and its own list of trusted roots is empty in the wheels
that bring it along.
"""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg.pq import Conninfo

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates, after_handshake, tls_fault

__all__ = ["check_tls", "tls_parameters", "tls_words", "unverified"]

_FULL = "verify-full"
_FILES = {"sslrootcert": "ca", "sslcert": "cert", "sslkey": "key"}
"""Options of the URL, and the settings that say the same."""
_OLD = {"TLSv1", "TLSv1.1"}
_ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_ABOUT_US = re.compile(r"alert [a-z ]*(certificate|unknown ca|access denied)")
_ENDED = re.compile(r"connection failed: .*(SSL SYSCALL|closed the connection|has been closed|unexpected eof|reset by)")
_WORDS = (
    (
        re.compile(r"(server certificate for .*? does not match host name .*)"),
        "write the host in postgres.url as its certificate does, or have the certificate name that host",
    ),
    (
        re.compile(r"(certificate verify failed)$", re.MULTILINE),  # libpq keeps the reason to itself
        "look whether it has expired, and whether its CA is the one named with postgres.ca (FULCRUM_POSTGRES_CA)",
    ),
    (
        re.compile(r"(server does not support SSL)"),
        "turn it on there, or write sslmode=disable where nobody else is on that network",
    ),
    (
        re.compile(r"((?:root certificate|certificate|private key) file \".*)"),
        "look at postgres.ca, cert and key (FULCRUM_POSTGRES_CA, _CERT, _KEY), or what the URL names instead",
    ),
)
"""What libpq says, and the remedy."""
_RISKS = {
    "require": "it is encrypted, but nobody checks who answers",
    "verify-ca": "it is encrypted, but a certificate of any other host does too",
}
_MAYBE = "it goes in clear text where the server does not offer TLS, and nobody checks who answers"


def check_tls(parts: Mapping[str, Any], certificates: Certificates) -> None:
    """Raises `Invalid` where URL and settings contradict each other, or ask for what is too old."""
    for option, setting in _FILES.items():
        if parts.get(option) and getattr(certificates, setting) is not None:
            raise Invalid(f"postgres.url says {option}, and postgres.{setting} is set; take one of them away.")
    certificates.check()
    mode = parts.get("sslmode")
    if certificates.named and mode not in {None, _FULL}:
        raise Invalid(f"postgres.url says sslmode={mode}, and certificates are named; write sslmode={_FULL}.")
    if parts.get("ssl_min_protocol_version") in _OLD:
        raise Invalid("postgres.url: ssl_min_protocol_version is too old; write TLSv1.2 or TLSv1.3.")


def tls_parameters(parts: Mapping[str, Any], certificates: Certificates) -> dict[str, str]:
    """What the connection is given besides the URL's parts, and instead of them."""
    files = {option: getattr(certificates, setting) for option, setting in _FILES.items()}
    found = {option: str(path) for option, path in files.items() if path is not None}
    found |= {"ssl_min_protocol_version": parts.get("ssl_min_protocol_version") or "TLSv1.2"}
    told, roots = _told(parts, "sslmode"), found.get("sslrootcert") or _told(parts, "sslrootcert")
    full = certificates.named or told == _FULL or (roots == "system" and not parts.get("sslmode"))
    if full:
        found["sslmode"] = _FULL
    if full and (roots == "system" or not (roots or _theirs())):
        found["sslrootcert"] = _bundle()
    return found


def unverified(parts: Mapping[str, Any], certificates: Certificates) -> str | None:
    """What may happen on the way to the server, where nobody has chosen that; None: nothing, or it was."""
    mode = tls_parameters(parts, certificates).get("sslmode") or _told(parts, "sslmode")
    hosts = str(parts.get("hostaddr") or parts.get("host") or "").split(",")
    if mode in {_FULL, "disable"} or all(map(_here, hosts)):
        return None
    return f"sslmode={mode}: {_RISKS.get(mode, _MAYBE)}"


def tls_words(text: str, *, secured: bool) -> str | None:
    """What libpq said about TLS, and the remedy; None where it spoke of other things.

    `secured`: it was told to speak TLS only.
    """
    if _ABOUT_US.search(text) or (secured and _ENDED.search(text)):
        return after_handshake("postgres")
    for said, remedy in _WORDS:
        if found := said.search(text):
            return f"{found[1]}; {remedy}"
    return tls_fault(RuntimeError(text), "postgres")


def _here(host: str) -> bool:
    """A socket, or this machine's loopback."""
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _told(parts: Mapping[str, Any], option: str) -> str:
    """By the URL, by libpq's variables, or else by libpq itself."""
    return str(parts.get(option) or _defaults().get(option) or "")


def _defaults() -> dict[str, str]:
    """Of libpq itself, with what its variables (PGSSLMODE and so on) say."""
    return {option.keyword.decode(): (option.val or b"").decode() for option in Conninfo.get_defaults()}


def _theirs() -> bool:
    """The file that libpq takes where none is named."""
    try:
        return Path("~/.postgresql/root.crt").expanduser().is_file()
    except (RuntimeError, OSError):  # no home, or one that is closed to us
        return False


def _bundle() -> str:
    """The system's roots in one file; `system` where none is known: then libpq looks itself."""
    known = (ssl.get_default_verify_paths().cafile, *_ROOTS)
    return next((path for path in known if path and Path(path).is_file()), "system")
