"""Reads an export and says whether it is whole."""

import stat
from pathlib import Path

from fulcrum_mcp.cli.output import clean, note, say, say_json
from fulcrum_mcp.cli.progress import progress
from fulcrum_mcp.composition.audit import read_check
from fulcrum_mcp.core.trail import Fault, TrailVerifier
from fulcrum_mcp.errors import Invalid

__all__ = ["verify"]

_LONGEST = 128 << 20
"""Bytes of a line; no record can be longer."""


def verify(path: Path, public_key: Path, *, as_json: bool) -> int:
    """The exit code: 0 whole, 1 broken. Raises `Invalid` for what cannot be read."""
    key, check = read_check(public_key)
    verifier = TrailVerifier(key, check)
    fault = _read(path, verifier)
    if as_json:
        say_json(_document(verifier, fault))
    elif fault is not None:
        say(clean(fault))
    else:
        say(f"{verifier.records} records, {verifier.chains} chains, {verifier.checkpoints} checkpoints: whole")
        note(f"exported {clean(verifier.exported_at)}, signed by key {key}")
    return 0 if fault is None else 1


def _read(path: Path, verifier: TrailVerifier) -> Fault | None:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise Invalid(f"{path} is a folder; give the file that `fulcrum audit export` wrote")
        with path.open("rb") as file, progress() as shown:
            for line in shown.count(iter(lambda: file.readline(_LONGEST), b"")):
                fault = verifier.feed(line)
                if fault is not None:
                    return fault
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
    return verifier.finish()


def _document(verifier: TrailVerifier, fault: Fault | None) -> dict[str, object]:
    return {
        "whole": fault is None,
        "records": verifier.records,
        "chains": verifier.chains,
        "checkpoints": verifier.checkpoints,
        "exported_at": verifier.exported_at,
        "fault": None if fault is None else {"line": fault.line, "where": fault.where, "what": fault.what},
    }
