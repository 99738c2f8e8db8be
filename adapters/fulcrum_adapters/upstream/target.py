"""An upstream's URL, parsed once and strictly; what of it may be shown to people and logs.

A URL that two parsers could read differently is refused: user info, control characters, backslashes, zones, odd ports.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fulcrum_mcp.errors import Invalid, UpstreamFailed

from .fault import Fault

__all__ = ["Target", "parse_target", "public_url"]

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_PATH = re.compile(r"/[!$%&'()*+,\-./0-9:;=@A-Z_a-z~]*")
_QUERY = re.compile(r"[!$%&'()*+,\-./0-9:;=?@A-Z_a-z~|\[\]{}^`]*")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upstream is. `path` includes the query, which may hold a secret and stays out of repr and messages."""

    upstream: str
    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def secure(self) -> bool:
        """True for https."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The Host header's value: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """The URL as people may see it: no query string."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path.partition('?')[0]}"

    def failed(self, fault: Fault) -> UpstreamFailed:
        """The error that callers see: what, where, what to do."""
        remedy = f"; {fault.remedy}" if fault.remedy else ""
        return UpstreamFailed(
            f"upstream {self.upstream} at {self.place}: {fault.reason}{remedy}", sent=fault.sent, timeout=fault.timeout
        )


def public_url(text: str) -> str:
    """A foreign URL (say, a redirect's target) cut down to what may be shown: scheme, host, port, path."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that is not a URL"
    shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}" if host else parts.path
    return re.sub(r"[^!-~]", "?", shown[:200])


def parse_target(upstream: str, url: str) -> Target:
    """Parse an http or https URL.

    Raises:
        Invalid: with the place of the fault; the URL itself is not quoted, it may hold a secret.
    """
    where = f"upstream {upstream}: url"
    if not url.isascii() and not url.isprintable():
        raise Invalid(f"{where} has characters that do not print; type it anew")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise Invalid(f"{where} has a space, control character or backslash; percent-encode or remove it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise Invalid(f"{where} is not a URL; write http://host:port/path") from exc
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise Invalid(f"{where} is neither http nor https; write http://host:port/path")
    if "@" in parts.netloc:
        raise Invalid(f"{where} holds a user name or password; put credentials in headers")
    if port == 0 or parts.netloc.endswith(":"):
        raise Invalid(f"{where} has a port that is not in 1..65535")
    path = parts.path or "/"
    if not path.startswith("/") or not _PATH.fullmatch(path) or not _QUERY.fullmatch(parts.query):
        raise Invalid(f"{where} has a character that its path or query may not hold; percent-encode it")
    full = f"{path}?{parts.query}" if parts.query else path
    return Target(upstream, scheme, _host(where, host, literal="[" in parts.netloc), port or _PORTS[scheme], full)


def _host(where: str, host: str, *, literal: bool) -> str:
    if literal or ":" in host:
        try:
            if "%" in host:
                raise ValueError(host)  # noqa: TRY301 - one refusal for both
            return str(ipaddress.IPv6Address(host))
        except ValueError as exc:
            raise Invalid(f"{where} has a host that is not an IPv6 address (zones are not taken)") from exc
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as exc:
            raise Invalid(f"{where} has a host that is not a domain name") from exc
    if not _NAME.fullmatch(host):
        raise Invalid(f"{where} has no host, or one that is not a domain name")
    return host.lower()
