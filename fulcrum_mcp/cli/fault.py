"""What nobody expected: one line for the person, the traceback into the data folder's log."""

import os
import secrets
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from fulcrum_mcp.errors import FulcrumError

__all__ = ["report"]


def report(command: str, error: BaseException, arguments: Sequence[str]) -> str:
    """Write the traceback to `DATA/fulcrum.log` (0600) and say where it is."""
    error_id = f"err_{secrets.token_hex(6)}"
    said = f"{command}: something went wrong here ({type(error).__name__}); "
    try:
        log = _folder(arguments) / "fulcrum.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "a") as file:
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            file.write(f"{moment} {error_id} {command}\n{''.join(traceback.format_exception(error))}\n")
    except (OSError, FulcrumError):
        return said + "set FULCRUM_DEBUG=1 to see where"
    return said + f"{log} knows more under {error_id}, or set FULCRUM_DEBUG=1"


def _folder(arguments: Sequence[str]) -> Path:
    from fulcrum_mcp.settings import load  # noqa: PLC0415 (only when something went wrong)

    data = None
    for position, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--data" and position + 1 < len(arguments):
            data = arguments[position + 1]
        elif argument.startswith("--data="):
            data = argument.removeprefix("--data=")
    given = {name: os.environ[name] for name in ("FULCRUM_DATA", "XDG_DATA_HOME", "HOME") if name in os.environ}
    return load(None, environ=given, overrides={"data": data}).data
