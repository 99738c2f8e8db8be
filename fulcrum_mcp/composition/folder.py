"""The data folder: private to its owner, shared by every process of one installation."""

import os
import stat
from pathlib import Path

from fulcrum_mcp.errors import Invalid, Unavailable

__all__ = ["open_folder", "write_once"]


def open_folder(path: Path) -> Path:
    """Make the folder (0700) if it is not there; refuse one that others may write to.

    Raises `Invalid`, `Unavailable`.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except FileExistsError:
        raise Invalid(f"{path}: is a file, not a folder; name another with --data") from None
    except OSError as exc:
        raise Unavailable(f"{path}: cannot be used as data folder ({exc.strerror}); name another with --data") from exc
    if os.geteuid() not in {0, found.st_uid}:
        raise Invalid(f"{path}: belongs to another user; name a folder of your own with --data")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Invalid(f"{path}: others may write to it; run: chmod 700 {path}")
        if (path / "fulcrum.db").exists() or not any(path.iterdir()):
            path.chmod(0o700)
    return path


def write_once(path: Path, text: str) -> bool:
    """Put `text` into a new file (0600), whole or not at all; False when somebody was first.

    Raises `Unavailable`.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
    except OSError as exc:
        raise Unavailable(f"{path}: cannot be written ({exc.strerror}); check the folder and its disk") from exc
    return True
