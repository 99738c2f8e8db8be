"""What an operator says about one Streamable HTTP upstream."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fulcrum_mcp.errors import Invalid

__all__ = ["HttpUpstreamConfig"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpUpstreamConfig:
    """One upstream. Times in seconds, sizes in bytes; `url` and `headers` may hold secrets and are not in repr.

    `trusted`: the URL comes from the operator's own file, so any address may be dialled. Otherwise private addresses
    are refused unless `allow_private` is True or names a network (`10.0.0.0/8`) that holds them.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    client: Literal["pool", "aiohttp"] = "pool"
    trusted: bool = True
    allow_private: bool | Collection[str] = False
    ca_file: Path | None = None
    connect_seconds: float = 5.0
    head_seconds: float = 75.0
    """An upstream of 2026-07-28 may withhold its head for 15 s, then needs its minute."""
    idle_seconds: float = 300.0
    keep_seconds: float = 20.0
    queue_seconds: float = 10.0
    max_connections: int = 256
    max_waiting: int = 1024
    max_head: int = 64 * 1024
    max_body: int = 16 * 1024 * 1024
    max_event: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Raises `Invalid` naming the upstream and the field, never a header's value."""
        where = f"upstream {self.name}"
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name):
                raise Invalid(f"{where}: headers: {name!r} is not a header name")
            if name.lower() in _OURS:
                raise Invalid(f"{where}: headers: {name} belongs to the connection; remove it")
            if not _VALUE.fullmatch(value):
                raise Invalid(
                    f"{where}: headers: the value of {name} has a line break, a control character or a character "
                    "beyond Latin-1; correct it where it is defined"
                )
        for name in ("connect", "head", "idle", "keep", "queue"):
            if not getattr(self, f"{name}_seconds") > 0:
                raise Invalid(f"{where}: {name}_seconds is not above 0")
        for name in ("max_connections", "max_waiting", "max_head", "max_body", "max_event"):
            if getattr(self, name) < 1:
                raise Invalid(f"{where}: {name} is not above 0")
        if self.client not in ("pool", "aiohttp"):
            raise Invalid(f'{where}: client {self.client!r} is neither "pool" nor "aiohttp"')
