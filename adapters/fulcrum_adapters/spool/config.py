"""How a spool is kept."""

from dataclasses import dataclass

from fulcrum_mcp.errors import Invalid

__all__ = ["SpoolConfig"]

_MIB = 1 << 20
_LEAST = 4096


@dataclass(frozen=True, slots=True)
class SpoolConfig:
    """`durability`: `sync` survives power loss (one fdatasync an append), `os` survives the process only."""

    durability: str = "sync"
    segment_bytes: int = 64 * _MIB
    max_bytes: int = 1024 * _MIB
    """What one writer may hold until the store has confirmed it; beyond it, calls are denied."""

    def __post_init__(self) -> None:
        if self.durability == "stream":
            raise Invalid(
                'audit.durability = "stream" has no spool: only `fulcrum server` can use it; use "sync" or "os"'
            )
        if self.durability not in {"sync", "os"}:
            raise Invalid(f'audit.durability = "{self.durability}" is not one of sync, os')
        if not _LEAST <= self.segment_bytes < 1 << 40:
            raise Invalid(f"audit.segment_bytes = {self.segment_bytes} is not between {_LEAST} and 2^40")
        if self.max_bytes < 4 * _LEAST:
            raise Invalid(f"audit.max_spool = {self.max_bytes} is too small; give it at least a few MiB")
        if self.segment_bytes > self.max_bytes // 4:  # only a segment that is no longer written can be removed
            object.__setattr__(self, "segment_bytes", self.max_bytes // 4)
