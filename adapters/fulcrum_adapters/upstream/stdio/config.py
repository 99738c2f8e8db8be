"""How a stdio upstream is started and bounded. The command comes from the operator's file only, never over an API."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from fulcrum_mcp.errors import Invalid

__all__ = ["INHERITED", "StdioConfig"]

INHERITED = (
    *("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""What a server's process inherits of the gateway's environment: what it needs to find its files and the network
(`uvx` and `npx` fetch on first start); nothing else, so none of the gateway's secrets."""


@dataclass(frozen=True, slots=True)
class StdioConfig:
    """One stdio server. Times in seconds, sizes in bytes."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Added to the inherited base; its values are the operator's secrets and never shown."""
    directory: str | None = None
    max_processes: int = 64
    max_processes_per_principal: int = 16
    max_in_flight: int = 1000
    """Unanswered requests of one legacy session."""
    idle_timeout: float = 1800.0
    line_limit: int = 16 * 1024 * 1024
    """A longer line of output makes the process unhealthy: it is ended."""
    input_limit: int = 4 * 1024 * 1024
    """Bytes that may wait for a process that does not read; beyond, requests fail unsent."""
    stream_limit: int = 4 * 1024 * 1024
    """Bytes of events that may wait for a client that does not read."""
    replay_limit: int = 4 * 1024 * 1024
    """Bytes of events that a legacy session keeps for resumption; the oldest go first."""
    stall_timeout: float = 30.0
    """How long a slow client may hold up its own legacy process before its stream is broken."""
    stream_delay: float = 1.0
    """Silence after which an answer's head is sent as a stream."""
    cancel_grace: float = 5.0
    """How long a cancelled request may still be answered before its stream ends."""
    stop_grace: float = 2.0
    """Wait after closing stdin, and again after SIGTERM."""
    max_pause: float = 30.0
    """The longest pause between restarts of a process that keeps crashing."""
    healthy_after: float = 30.0
    """A process that lived this long starts again without a pause."""

    def __post_init__(self) -> None:
        """Raise `Invalid` for a command that cannot be run."""
        if not self.command or not self.command[0]:
            raise Invalid("stdio server: command is empty; name the program to start")
        for word in (*self.command, *self.environment, *self.environment.values()):
            if "\0" in word:
                raise Invalid(f"stdio server {self.command[0]!r}: command or environment holds a NUL byte; remove it")
        for name in self.environment:
            if not name or "=" in name:
                raise Invalid(f"stdio server {self.command[0]!r}: {name!r} is not the name of an environment variable")

    def variables(self) -> dict[str, str]:
        """The whole environment of the process."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        safe = {name: value for name, value in inherited.items() if not value.startswith("()")}
        return safe | dict(self.environment)
