"""Writes an export: to a file that is there whole or not at all, or to standard output."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import typer

from fulcrum_mcp.cli.audit_remote import RemoteTrail
from fulcrum_mcp.cli.output import note
from fulcrum_mcp.cli.progress import progress
from fulcrum_mcp.composition.audit import open_trail
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.checkpoint import MANIFEST
from fulcrum_mcp.core.trail import Fault
from fulcrum_mcp.errors import Invalid, Unavailable

__all__ = ["local", "remote"]

_MANIFEST = b'{"type":"%b"' % MANIFEST.encode("ascii")


def local(data: Path, output: Path, tenant: str | None) -> None:
    """From a data folder, spools included; exit 1 when the store's own trail is broken."""
    faults: list[Fault] = []
    with open_trail(data) as trail:
        if not trail.complete:
            raise Unavailable(
                f"{data}: the processor of a running Fulcrum does not keep up; look at its log, then try again"
            )
        counts = trail.reader.counts(tenant)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines = export_trail(trail.reader, trail.signer, tenant, now, faults.append)
        with _writing(output) as file:
            _write(lines, file, counts["records"] + counts["checkpoints"] + 1)
    if faults:
        note(f"{faults[0]}\nthe store was changed or damaged: {output} holds all of it, but no manifest")
        raise typer.Exit(1)
    note(f"{counts['records']} records, {counts['chains']} chains: {_shown(output)}")


def remote(trail: RemoteTrail, output: Path) -> None:
    """From a server."""
    with _writing(output) as file:
        last = _write(trail.export(), file, None)
    manifest = _manifest(last)
    if manifest is None:
        note(f"the server sent no manifest: its trail is broken, or the export was cut off; {output} will not verify")
        raise typer.Exit(1)
    note(f"{manifest.records} records, {len(manifest.chains)} chains: {_shown(output)}")


class _Manifest(msgspec.Struct):
    records: int
    chains: list[object]


def _manifest(line: bytes) -> _Manifest | None:
    if not line.startswith(_MANIFEST):
        return None
    try:
        return msgspec.json.decode(line, type=_Manifest)
    except msgspec.MsgspecError:
        return None


def _shown(output: Path) -> str:
    return "standard output" if str(output) == "-" else str(output)


def _write(lines: Iterable[bytes], file: BinaryIO, total: int | None) -> bytes:
    """The last line. A terminal sees how far it is."""
    line = b""
    with progress() as shown:
        for line in shown.count(lines, total):
            file.write(line)
    return line


@contextmanager
def _writing(output: Path) -> Iterator[BinaryIO]:
    if str(output) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.is_dir() or not output.name:
        raise Invalid(f"-o {output}: is a folder; name a file in it")
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise Invalid(f"-o {output}: cannot be written ({exc.strerror}); name another file") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        draft.replace(output)
    except OSError as exc:
        raise Unavailable(f"-o {output}: cannot be written ({exc.strerror}); nothing was left there") from exc
    finally:
        draft.unlink(missing_ok=True)
