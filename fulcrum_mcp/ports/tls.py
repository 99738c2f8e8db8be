"""The files of one part's TLS, and what TLS says when it fails, in our words.

It stands among the ports because every adapter with connections of its own needs the same judgement: chain and host
name are always verified, nothing older than TLS 1.2 is spoken, and there is no way to switch that off.
"""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fulcrum_mcp.errors import Invalid

__all__ = ["Certificates", "after_handshake", "tls_fault"]

_UNTRUSTED = re.compile(r"certificate verify failed: (.+?)(?: \(_ssl|\"|$)", re.MULTILINE)
_SILENT = "handshake operation timed out"
_NAMES = ("mismatch", "not valid for", "does not match")
_DATES = ("expired", "not yet valid")
_ABOUT_US = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""In OpenSSL's names of the alerts by which a server says that it does not accept us."""
_CLEAR = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
_OLD = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"}


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files, all of which may be missing."""

    part: str
    """`postgres`, `redis` or `nats`: names the settings in messages."""
    ca: Path | None = None
    """Who may sign the server's certificate; None: whom the system trusts."""
    cert: Path | None = None
    """What shows the server who we are, with its chain."""
    key: Path | None = None
    """Its private key, without a passphrase."""

    def check(self) -> None:
        """Raises `Invalid` where they are not what they should be."""
        if (self.cert is None) != (self.key is None):
            raise Invalid(f"{self.part}.cert and {self.part}.key belong together; name both, or neither.")
        if self.named:
            self.context()

    @property
    def named(self) -> bool:
        """Is any file?"""
        return self.ca is not None or self.cert is not None or self.key is not None

    def context(self) -> ssl.SSLContext:
        """Of what the files hold now, so that a new connection follows their rotation. Raises `Invalid`."""
        if not self.named:
            return _of_the_system()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca is None:
                context.load_default_certs()
            else:
                context.load_verify_locations(cafile=self.ca)
        except OSError as exc:
            raise Invalid(f"{_told(self.part, 'ca')}: {self.ca} {_why(exc, 'holds no certificates')}") from exc
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_passphrase)
            except OSError as exc:
                what = "are not a certificate and its private key, without a passphrase"
                where = f"{_told(self.part, 'cert')} and key: {self.cert} and {self.key}"
                raise Invalid(f"{where} {_why(exc, what)}") from exc
        return context


@cache
def _of_the_system() -> ssl.SSLContext:
    """Dear to make: 20 ms."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_passphrase() -> str:
    """Instead of a question on the terminal."""
    return ""


def _why(exc: OSError, otherwise: str) -> str:
    what = otherwise if isinstance(exc, ssl.SSLError) else f"cannot be read ({exc.strerror})"
    return f"{what}; name PEM files that this process may read"


def _told(part: str, setting: str) -> str:
    return f"{part}.{setting} (FULCRUM_{part.upper()}_{setting.upper()})"


def tls_fault(exc: BaseException, part: str) -> str | None:
    """What was wrong with TLS or its files, and the remedy; None where TLS was not what failed.

    It may have been packed into errors of others, even as a text of theirs.
    """
    for error in _chain(exc):
        if isinstance(error, Invalid):
            return str(error)
        if after_handshake(part) in str(error):
            return after_handshake(part)
        untrusted = _UNTRUSTED.search(str(error))
        if isinstance(error, ssl.SSLCertVerificationError) or untrusted:
            said = getattr(error, "verify_message", None) or (untrusted[1] if untrusted else "")
            return f"its certificate is not accepted ({said.rstrip('.')}); {_remedy(said, part)}"
        if isinstance(error, ssl.SSLError) and error.reason:  # it has none where we made it
            return _of_handshake(error.reason, part)
        if _SILENT in str(error):
            return f"it did not answer the TLS handshake in time; look whether it speaks TLS at the port in {part}.url"
    return None


def after_handshake(part: str) -> str:
    """Of a connection that ended before the first answer: mostly so in TLS 1.3, where a server judges us last."""
    wanted = f"name one that it accepts with {_told(part, 'cert')} and key"
    return f"it ended the connection after the TLS handshake; if it demands a client certificate, {wanted}"


def _of_handshake(reason: str, part: str) -> str:
    if "ALERT" in reason and any(word in reason for word in _ABOUT_US):
        return after_handshake(part)
    if reason in _CLEAR:
        return f"it does not speak TLS there; have it speak TLS, or look at the port in {part}.url"
    if reason in _OLD:
        return "it speaks no TLS that is new enough; have it speak TLS 1.2 or 1.3"
    return f"TLS failed ({reason.lower().replace('_', ' ')}); have it speak TLS 1.2 or 1.3, and see its log"


def _remedy(said: str, part: str) -> str:
    if any(word in said for word in _NAMES):
        return f"write the host in {part}.url as its certificate does, or have the certificate name that host"
    if any(word in said for word in _DATES):
        return "renew it on the server, or mend the clocks"
    return f"name the CA that signed it with {_told(part, 'ca')}"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    here: BaseException | None = exc
    for _ in range(10):
        if here is None:
            return
        yield here
        here = here.__cause__ or here.__context__
