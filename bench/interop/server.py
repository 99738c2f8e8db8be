"""A server of every feature, made with the Python SDK: `server.py stdio`, or `server.py PORT [legacy | modern]`.

It speaks both eras unless told to speak one. `ask` and `sample` ask their client in whichever way its era has.
"""

import sys
from typing import Annotated

import anyio
import uvicorn
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve, Sample
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import CreateMessageResult, SamplingMessage, TextContent
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

server = MCPServer("reference", instructions="Every feature once.")
cancelled: dict[str, anyio.Event] = {}


def cancellation(name: str) -> anyio.Event:
    return cancelled.setdefault(name, anyio.Event())


class Sum(BaseModel):
    total: int
    parts: list[int]


class Name(BaseModel):
    name: str


@server.tool(title="Echo")
async def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
async def add(a: int, b: int) -> Sum:
    """Structured output."""
    return Sum(total=a + b, parts=[a, b])


@server.tool()
async def forbidden(a: int) -> Sum:
    """A tool with an output schema that the policy denies."""
    return Sum(total=a, parts=[a])


@server.tool()
async def fail(why: str) -> str:
    """End with an error."""
    raise ValueError(why)


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return "counted"


async def _who() -> Elicit[Name]:
    return Elicit("Who is there?", Name)


@server.tool()
async def ask(who: Annotated[Name, Resolve(_who)]) -> str:
    """Ask the person."""
    return f"hello {who.name}"


async def _answer() -> Sample:
    message = SamplingMessage(role="user", content=TextContent(type="text", text="6 x 7?"))
    return Sample([message], max_tokens=10)


@server.tool()
async def sample(answer: Annotated[CreateMessageResult, Resolve(_answer)]) -> str:
    """Ask the model."""
    return answer.content.text if isinstance(answer.content, TextContent) else "not text"


@server.tool()
async def wait(name: str) -> str:
    """Wait for the cancellation."""
    try:
        await anyio.sleep(60)
    except anyio.get_cancelled_exc_class():
        cancellation(name).set()
        raise
    return "never"


@server.tool()
async def was_cancelled(name: str) -> bool:
    """Whether `wait` with this name was cancelled; waits for it a little."""
    with anyio.move_on_after(5):
        await cancellation(name).wait()
    return cancellation(name).is_set()


@server.resource("note://one", mime_type="text/plain")
def note() -> str:
    """A note."""
    return "a note: \u00e4\u00f6\u00fc \u2028 end"


@server.resource("note://by/{name}")
def by_name(name: str) -> str:
    """A note by name."""
    return f"note {name}"


@server.prompt()
def greet(name: str) -> list[UserMessage]:
    """Greet."""
    return [UserMessage(content=f"Say hello to {name}")]


def speaking_only(app: ASGIApp, era: str) -> ASGIApp:
    """The same, refusing the other era as a server that has never heard of it does."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            version = dict(scope["headers"]).get(b"mcp-protocol-version", b"").decode()
            if (version in MODERN_PROTOCOL_VERSIONS) != (era == "modern"):
                await (_unsupported(version) if era == "modern" else _no_session)(scope, receive, send)
                return
        await app(scope, receive, send)

    return serve


def _unsupported(version: str) -> JSONResponse:
    data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version}
    error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)


_no_session = PlainTextResponse("Bad Request: no valid session ID", 400)


def main() -> None:
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    app: ASGIApp = server.streamable_http_app()
    if len(sys.argv) > 2:
        app = speaking_only(app, sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")


if __name__ == "__main__":
    main()
