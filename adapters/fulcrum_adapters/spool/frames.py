"""Frames in a segment file; the frames themselves: `core.frames`."""

import os
from pathlib import Path

from fulcrum_mcp.core.frames import HEADER, MAX_PAYLOAD, first

__all__ = ["read_frame"]


def read_frame(path: Path, at: int) -> tuple[int, bytes] | None:
    """As `first`, of a file, without reading more than the frame. Raises OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(file, HEADER.size, at)
        if len(head) < HEADER.size or HEADER.unpack(head)[0] > MAX_PAYLOAD:
            return None
        return first(os.pread(file, HEADER.size + HEADER.unpack(head)[0], at))
    finally:
        os.close(file)
