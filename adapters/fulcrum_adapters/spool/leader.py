"""Leadership by a lock on a file: the system lets go of it when its holder dies."""

import fcntl
import os
from pathlib import Path

from fulcrum_mcp.errors import Unavailable

__all__ = ["FileLeadership"]


class FileLeadership:
    """A `Leadership`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def acquire(self) -> bool:
        """See `Leadership`."""
        if self._file >= 0:
            return True
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise Unavailable(f"the lock {self._path} cannot be made: {exc.strerror}") from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """See `Leadership`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
