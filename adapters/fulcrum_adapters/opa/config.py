"""Where the external OPA is and what is expected of it."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fulcrum_mcp.errors import Invalid

__all__ = ["OpaConfig"]


@dataclass(frozen=True, slots=True)
class OpaConfig:
    """`url` is the server's root, e.g. http://opa:8181; `token` goes as a bearer token and is not shown.

    `policies` are names that must be in every answer: one that is missing (a bundle not loaded yet) denies.
    """

    url: str
    timeout: float = 1.0
    policies: tuple[str, ...] = ()
    token: str | None = None
    max_answer: int = 1 << 20

    def __post_init__(self) -> None:
        """Raises `Invalid`."""
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError as exc:
            raise Invalid(f"policy.opa_url: {exc}; write http(s)://HOST:PORT") from exc
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise Invalid(f"policy.opa_url {parts.scheme}://{parts.hostname}: write http(s)://HOST:PORT")
        if not 0 < self.timeout <= 60:  # noqa: PLR2004 - seconds that a call may wait
            raise Invalid(f"policy.timeout {self.timeout}: write more than 0 and at most 60 seconds")

    def __repr__(self) -> str:
        """Without the token and without what may stand before the host."""
        return f"OpaConfig(host={urlsplit(self.url).hostname!r}, timeout={self.timeout}, policies={self.policies})"
