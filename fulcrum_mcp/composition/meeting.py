"""Where the workers of one supervisor meet: a private folder with a listening socket for each.

The supervisor binds them and keeps them open, so that what is handed to a worker that is being replaced waits for the
next one instead of failing.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fulcrum_mcp.errors import Unavailable

__all__ = ["Meeting"]

_LONGEST: Final = 100
"""Bytes that the path of a unix socket may have on every system, with some to spare."""
_LOCK: Final = "lock"
_WAITING: Final = 512


class Meeting:
    """`folder`, with `<number>.sock` in it for each of `sockets`; both are gone when the context is left."""

    def __init__(self, data: Path, workers: int) -> None:
        """Below the data folder; in a folder of its own among the temporary ones where that path is too long."""
        self._home = data / "workers"
        self._workers = workers
        self.folder = data
        self.sockets: dict[int, socket.socket] = {}
        self._lock: int | None = None

    def __enter__(self) -> Self:
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            _sweep(self._home)
            self.folder = Path(tempfile.mkdtemp(prefix="", dir=self._home)).resolve()
            if len(os.fsencode(self.folder / "00.sock")) > _LONGEST:
                self.folder.rmdir()
                self.folder = Path(tempfile.mkdtemp(prefix="fulcrum-")).resolve()
            draft = self.folder / f"{_LOCK}.new"
            self._lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            draft.rename(self.folder / _LOCK)  # never seen without being held
            for number in range(1, self._workers + 1):
                bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sockets[number] = bound
                bound.bind(str(self.folder / f"{number}.sock"))
                bound.listen(_WAITING)
                bound.setblocking(False)
        except OSError as exc:
            self.__exit__(None, None, None)
            msg = f"{self.folder}: the workers cannot meet there ({exc.strerror or exc}); check the folder and its disk"
            raise Unavailable(msg) from exc
        return self

    def close_sockets(self) -> None:
        """Nobody is to wait any more."""
        for bound in self.sockets.values():
            bound.close()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_sockets()
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)


def _sweep(home: Path) -> None:
    """Take away the folders of supervisors that were killed: nobody holds their lock."""
    for folder in home.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
