"""The SDK's server with an event store, so that streams can be resumed; prints its port when it listens.

Tools: `steps` waits for the file `go` in the folder it was given, telling progress before and after; `polled` closes
its stream after the first event, as a server does that wants to be polled.
"""

import socket
import sys
from pathlib import Path

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage

server = MCPServer("resuming")
folder = Path(sys.argv[1])


class Kept(EventStore):
    """Every event of every stream, in memory."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        number = int(last_event_id)
        stream = self._events[number - 1][0]
        for later, (owner, message) in enumerate(self._events[number:], number + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(later)))
        return stream


async def _go() -> None:
    while not (folder / "go").exists():  # noqa: ASYNC110 - another process makes the file
        await anyio.sleep(0.01)


@server.tool()
async def steps(ctx: Context) -> str:
    """Wait."""
    await ctx.report_progress(1, 2)
    await _go()
    await ctx.report_progress(2, 2)
    return "all steps"


@server.tool()
async def polled(ctx: Context) -> str:
    """Be polled."""
    await ctx.close_sse_stream()
    await _go()
    return "polled"


def main() -> None:
    app = server.streamable_http_app(event_store=Kept(), retry_interval=50)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])


if __name__ == "__main__":
    main()
