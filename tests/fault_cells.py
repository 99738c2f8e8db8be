"""The table of faults as data: what is done to which part, and how much the part is of use under it."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import redis
from fault_site import Site

__all__ = ["CELLS", "PARTS", "Cell", "Use"]

PARTS = ("postgres", "redis", "nats", "upstream")
LATE = 5.0
"""Seconds that everything arrives later: beyond every time limit of the gateways."""

Use = Literal["none", "doubtful", "all", "emptied"]
"""`none`: it does not answer; `doubtful`: some of it may arrive; `all`: it works, if slowly; `emptied`: it has lost
what it knew and works."""


@dataclass(frozen=True)
class Cell:
    """One fault under one part."""

    part: str
    fault: str
    harm: Callable[[Site], None]
    use: Use

    def __str__(self) -> str:
        return f"{self.part}-{self.fault}"


def _network(part: str) -> list[Cell]:
    # A bit that flips on its way to an upstream changes what it is asked: only TLS can tell. So only answers are hit.
    way: Literal["down", "both"] = "down" if part == "upstream" else "both"
    return [
        Cell(part, "latency", lambda site: site.proxies[part].latency(LATE), "none"),
        Cell(part, "reset", lambda site: site.proxies[part].reset(), "none"),
        Cell(part, "blackhole", lambda site: site.proxies[part].blackhole(), "none"),
        Cell(part, "slice", lambda site: site.proxies[part].slice(64), "all"),
        Cell(part, "corrupt", lambda site: site.proxies[part].corrupt(701, way), "doubtful"),
        Cell(part, "refuse", lambda site: site.proxies[part].refuse(), "none"),
        Cell(part, "pause", lambda site: site.servers[part].pause(), "none"),
        Cell(part, "drop", lambda site: site.proxies[part].drop(), "doubtful"),
    ]


def _valkey(site: Site, *words: str) -> None:
    with closing(redis.Redis.from_url(site.installation.valkey.url)) as valkey:
        valkey.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no types here


def _killed(site: Site) -> None:
    site.installation.valkey.kill()


def _restarted_empty(site: Site) -> None:
    site.installation.valkey.restart(empty=True)


_OF_REDIS = [
    Cell("redis", "stop", _killed, "none"),
    Cell("redis", "readonly", lambda site: _valkey(site, "REPLICAOF", "127.0.0.1", "1"), "none"),
    Cell("redis", "flushall", lambda site: _valkey(site, "FLUSHALL"), "emptied"),
    Cell("redis", "empty", _restarted_empty, "emptied"),
    Cell("redis", "noscript", lambda site: _valkey(site, "SCRIPT", "FLUSH"), "all"),
]

CELLS = {part: [*_network(part), *(_OF_REDIS if part == "redis" else ())] for part in PARTS}
