"""`fulcrum wrap`, put together: one stdio server, governed, on this process's standard input and output."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from fulcrum_adapters.upstream.stdio.spawn import Descriptor
from fulcrum_mcp.api.mcp.stdio import StdioFace
from fulcrum_mcp.composition.audit import open_processor
from fulcrum_mcp.composition.control import open_control, open_ledger_usage
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.gateway import open_data_plane
from fulcrum_mcp.composition.policy import remember_policies
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.processor import ProcessorConfig
from fulcrum_mcp.settings import ServerSettings, Settings

__all__ = ["wrap_settings", "wrap_stdio"]

_MAX_LINE = 16 * 1024 * 1024


def wrap_settings(settings: Settings, name: str, command: tuple[str, ...]) -> Settings:
    """The same settings with this one server. The server inherits this process's environment, less our own secrets."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FULCRUM_")}
    server = ServerSettings.model_validate(
        {"name": name, "command": command, "env": environment, "cwd": Path.cwd(), "shown": command[0]}
    )
    return settings.model_copy(update={"servers": (server,)})


async def wrap_stdio(settings: Settings, role: str | None) -> None:
    """Serve until the client closes its side, or until SIGTERM; then commit and store what was recorded."""
    folder = open_folder(settings.data)
    usage, close_usage = open_ledger_usage(folder)
    control = open_control(settings, usage)
    plane = await open_data_plane(settings, control.config)
    remember_policies(settings, plane.snapshots.where)
    processor = open_processor(folder, ProcessorConfig(inputs_days=settings.audit.inputs_days))
    processor.start()
    principal = Principal(
        tenant="default",
        agent=settings.servers[0].name,
        key="local",
        roles=() if role is None else (role,),
        scopes=frozenset({"tool:call"}),
    )
    exchange = next(iter(plane.hub.exchanges.values()))
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    loop = asyncio.get_running_loop()
    given = Descriptor(_input(), loop)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), given)
    out = sys.stdout.buffer

    def write(line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            out.write(line.replace(b"\n", b" ") + b"\n")
            out.flush()

    face = StdioFace(SingleFace(exchange, plane.hub.sessions), principal, reader, write)
    serving = asyncio.create_task(face.serve())
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, serving.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        transport.close()
        await plane.close()
        await asyncio.to_thread(processor.stop)
        close_usage()
        control.close()


def _input() -> BinaryIO:
    """Standard input as something an event loop can wait for: uvloop ends the process over a file or a device."""
    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return sys.stdin.buffer
    ours, theirs = os.pipe()
    threading.Thread(target=_pump, args=(theirs,), name="fulcrum-stdin", daemon=True).start()
    return os.fdopen(ours, "rb", 0)


def _pump(into: int) -> None:
    with contextlib.suppress(OSError), os.fdopen(into, "wb", 0) as pipe:
        while part := os.read(0, 65_536):
            pipe.write(part)
