"""A copy of an exported trail with one word of one record changed, as somebody would who has something to hide."""

from pathlib import Path

__all__ = ["forge"]

_LIES = ((b'"effect":"deny"', b'"effect":"allow"'), (b'"outcome":"ok"', b'"outcome":"error"'))


def forge(trail: Path, copy: Path) -> str:
    """Write `copy` with the first denial turned into an allowance; answers what was changed, for people."""
    data = trail.read_bytes()
    for truth, lie in _LIES:
        if truth in data:
            copy.write_bytes(data.replace(truth, lie, 1))
            line = data[: data.index(truth)].count(b"\n") + 1
            return f"line {line}: {truth.decode()} made {lie.decode()}"
    raise ValueError(f"{trail}: nothing in it is worth forging")
