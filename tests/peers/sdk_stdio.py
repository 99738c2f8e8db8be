"""A stdio server made with the SDK: what it does is the SDK's doing, in whichever era it is spoken to."""

import anyio
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

server = MCPServer("peer", instructions="for tests")


class Name(BaseModel):
    name: str


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


@server.tool()
async def greet(ctx: Context) -> str:
    """Ask for a name."""
    result = await ctx.elicit("Who is there?", Name)
    return f"{result.action} {result.data.name if result.action == 'accept' else ''}"


@server.tool()
async def wait() -> str:
    """Wait for cancellation."""
    await anyio.sleep_forever()
    return "never"


@server.tool()
async def change(ctx: Context) -> str:
    """Tell that the tools changed."""
    await ctx.notify_tools_changed()
    return "changed"


@server.resource("note://one")
def note() -> str:
    """A note."""
    return "a note"


server.run("stdio")
