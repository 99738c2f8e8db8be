"""A few routes on addresses of their own, beside whatever else a process serves."""

import socket
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from fulcrum_mcp.api.bounded_http import BoundedHttp
from fulcrum_mcp.composition.listen import listen, shown
from fulcrum_mcp.settings import Bind

__all__ = ["Faces", "served"]


def served(app: Any, *, grace: int = 5) -> uvicorn.Config:
    """How every application of ours is served; `grace` in seconds for requests under way at the end."""
    return uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=grace,
        proxy_headers=False,
    )


class Faces:
    """Closed at the end of its `async with`."""

    def __init__(self) -> None:
        self._servers: list[tuple[uvicorn.Server, socket.socket]] = []

    async def serve(self, bind: Bind, routes: list[Route]) -> str:
        """Listen; where, as `host:port`. Raises `Unavailable`."""
        listener = listen(bind.host, bind.port)
        server = uvicorn.Server(served(Starlette(routes=routes), grace=1))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[listener])
        self._servers.append((server, listener))
        return shown(listener)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        servers, self._servers = self._servers, []
        for server, listener in servers:
            await server.shutdown(sockets=[listener])
