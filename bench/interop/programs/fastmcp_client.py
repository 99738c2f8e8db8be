"""fastmcp's client through the features of `server.py`; see `sdk.py` for its argument and what it prints."""

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport

__all__: list[str] = []

PLAN = json.loads(sys.argv[1])
PREFIX = PLAN.get("prefix", "")


def plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return [plain(item) for item in value] if isinstance(value, list) else value


def say(step: str, value: Any) -> None:
    text = json.dumps([step, plain(value)])
    sys.stdout.write((text.replace(PREFIX, "") if PREFIX else text) + "\n")
    sys.stdout.flush()


async def elicited(message: str, response_type: Any, _params: Any, _context: Any) -> Any:
    say("elicited", message)
    return response_type(name="Ada")


async def sampled(messages: Any, _params: Any, _context: Any) -> str:
    say("sampled", messages[0].content.text)
    return "forty-two"


async def progressed(done: float, total: float | None, message: str | None) -> None:
    say("progress", [done, total, message])


async def tried(step: str, work: Any) -> None:
    try:
        async with asyncio.timeout(30):
            say(step, await work)
    except TimeoutError:
        say(step, "NO ANSWER")
    except Exception as fault:  # noqa: BLE001 - whatever it raises is the outcome
        say(step, {"raised": type(fault).__name__, "text": str(fault)})


async def main() -> None:
    if "command" in PLAN:
        command, *args = PLAN["command"]
        transport: Any = StdioTransport(command, args)
    else:
        transport = StreamableHttpTransport(PLAN["url"], headers=PLAN.get("headers", {}))
    client = Client(
        transport,
        mode=PLAN.get("mode", "auto"),
        elicitation_handler=elicited,
        sampling_handler=sampled,
        progress_handler=progressed,
        timeout=30,
    )
    async with asyncio.timeout(90), client:
        await tried("tools", client.list_tools())
        for name, arguments in PLAN.get("calls", ()):
            await tried(name, client.call_tool_mcp(PREFIX + name, arguments))
        if "calls" in PLAN:
            return
        await tried("resources", client.list_resources())
        for name, arguments in (
            ("echo", {"text": "\u00e4 \u2028"}),
            ("add", {"a": 2, "b": 3}),
            ("fail", {"why": "because"}),
            ("forbidden", {"a": 1}),
            ("nothing", {}),
            ("count", {"steps": 3}),
            ("ask", {}),
            ("sample", {}),
        ):
            await tried(name, client.call_tool_mcp(PREFIX + name, arguments))
        await tried("read", client.read_resource("note://one"))
        await tried("prompt", client.get_prompt(PREFIX + "greet", {"name": "Ada"}))


async def connected() -> None:
    try:
        await main()
    except BaseException as fault:  # noqa: BLE001 - that it could not connect is an outcome too
        say("connection", f"{type(fault).__name__}: {fault}")


asyncio.run(connected())
