"""The socket of one worker, on which its siblings hand requests over: served as the gateway serves it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from fulcrum_mcp.api.bounded_http import BoundedHttp
from fulcrum_mcp.api.siblings import RelayedFace

__all__ = ["listening", "serving", "short_folder"]


@asynccontextmanager
async def serving(app: Any, path: Path) -> AsyncIterator[ServerState]:
    """Serve `app` to siblings; gives the connections that are open."""
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    async with listening(app, bound) as state:
        try:
            yield state
        finally:
            await asyncio.to_thread(path.unlink)


@asynccontextmanager
async def listening(app: Any, bound: socket.socket) -> AsyncIterator[ServerState]:
    """The same on a socket that is there already."""
    config = uvicorn.Config(
        RelayedFace(app), http=BoundedHttp, ws="none", lifespan="off", log_config=None, proxy_headers=False
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_unix_server(lambda: BoundedHttp(config, state, {}), sock=bound)
    try:
        yield state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.close()
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await server.wait_closed()


def short_folder() -> TemporaryDirectory[str]:
    """The path of a unix socket has a hundred characters at most."""
    return TemporaryDirectory(prefix="fulcrum-")
