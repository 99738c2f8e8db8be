"""HTTP servers we did not write, in one process: the SDK's MCP server at /mcp, a Starlette app beside it, on uvicorn.

Prints its port when it listens.
"""

import gzip
import socket
import sys
from collections.abc import AsyncIterator

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

server = MCPServer("peer", instructions="for tests")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress."""
    for step in range(steps):
        await ctx.report_progress(step, steps)
    return "counted"


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


async def chunked(request: Request) -> Response:
    body = await request.body()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    return StreamingResponse(parts(), media_type="application/json")


async def packed(request: Request) -> Response:
    return Response(gzip.compress(await request.body()), headers={"content-encoding": "gzip"})


async def events(_request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for n in range(20):
            yield b": ping\r\n\r\nid: %d\r\ndata: {}\r\n\r\n" % n
            await anyio.lowlevel.checkpoint()

    return StreamingResponse(parts(), media_type="text/event-stream")


async def dying(_request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise RuntimeError("on purpose")

    return StreamingResponse(parts(), media_type="text/event-stream")


async def moved(_request: Request) -> Response:
    return RedirectResponse("/mcp", 307)


async def empty(_request: Request) -> Response:
    return Response(status_code=204)


def main() -> None:
    app = server.streamable_http_app()
    app.router.routes.extend(
        Route(f"/{handler.__name__}", handler, methods=["POST"])
        for handler in (echo, chunked, packed, events, dying, moved, empty)
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])


if __name__ == "__main__":
    main()
