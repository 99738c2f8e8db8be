"""How a spool is kept."""

from dataclasses import dataclass

from fulcrum_mcp.errors import Invalid

__all__ = ["SpoolConfig"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SpoolConfig:
    """`durability`: `sync` survives power loss (one fdatasync an append), `os` survives the process only."""

    durability: str = "sync"
    segment_bytes: int = 64 * _MIB

    def __post_init__(self) -> None:
        if self.durability == "stream":
            raise Invalid('audit.durability = "stream" needs a JetStream adapter, which is not there yet: use "sync" or "os"')
        if self.durability not in {"sync", "os"}:
            raise Invalid(f'audit.durability = "{self.durability}" is not one of sync, os')
        if not 4096 <= self.segment_bytes < 1 << 40:
            raise Invalid(f"audit.segment_bytes = {self.segment_bytes} is not between 4096 and 2^40")
