"""The Python SDK's client, 2.x or 1.x, through every feature of `server.py`; run where one of them is installed.

Its one argument is JSON: `url` and `headers`, or `command`; `mode` (2.x: auto, legacy or a version); `prefix` of the
names; `fresh`: a new connection for each request. Prints one JSON line a step. The two generations differ in how a
session is opened, not in what is asked of it.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from importlib import import_module
from importlib.metadata import version
from typing import Any

__all__: list[str] = []

NEW = version("mcp").startswith("2.")
sdk: Any = import_module("mcp")
types: Any = import_module("mcp_types" if NEW else "mcp.types")
http: Any = import_module("mcp.client.streamable_http")
stdio: Any = import_module("mcp.client.stdio")
PLAN = json.loads(sys.argv[1])
PREFIX = PLAN.get("prefix", "")


def say(step: str, value: Any) -> None:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps([step, value])
    sys.stdout.write((text.replace(PREFIX, "") if PREFIX else text) + "\n")
    sys.stdout.flush()


async def elicited(_context: Any, params: Any) -> Any:
    say("elicited", params.message)
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def sampled(_context: Any, params: Any) -> Any:
    say("sampled", params.messages[0].content.text)
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text="forty-two"), model="none"
    )


async def rooted(_context: Any) -> Any:
    return types.ListRootsResult(roots=[])


@contextlib.asynccontextmanager
async def opened() -> AsyncGenerator[Any]:
    """Something with the SDK's `list_tools`, `call_tool` and so on."""
    callbacks = {"sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": rooted}
    headers = PLAN.get("headers", {})
    async with contextlib.AsyncExitStack() as stack:
        if "command" in PLAN:
            command, *args = PLAN["command"]
            transport = stdio.stdio_client(sdk.StdioServerParameters(command=command, args=args))
        elif NEW:
            httpx2: Any = import_module("httpx2")
            kept = {"limits": httpx2.Limits(max_keepalive_connections=0)} if PLAN.get("fresh") else {}
            client = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30, **kept))
            transport = http.streamable_http_client(PLAN["url"], http_client=client)
        else:
            transport = http.streamablehttp_client(PLAN["url"], headers=headers)
        if NEW:
            mode = PLAN.get("mode", "auto")
            session = await stack.enter_async_context(sdk.Client(transport, mode=mode, **callbacks))
            say("version", session.protocol_version)
        else:
            streams = await stack.enter_async_context(transport)
            session = await stack.enter_async_context(sdk.ClientSession(streams[0], streams[1], **callbacks))
            say("version", (await session.initialize()).protocolVersion)
        yield session


async def tried(step: str, work: Any) -> Any:
    """Say what came of it: the result, or the error that the peer gave."""
    try:
        async with asyncio.timeout(30):
            result = await work
    except TimeoutError:
        say(step, "NO ANSWER")
    except Exception as fault:  # noqa: BLE001 - whatever the SDK raises is the outcome
        error = getattr(fault, "error", None)
        say(step, {"raised": type(fault).__name__, "code": getattr(error, "code", None), "text": str(fault)})
    else:
        say(step, result)
        return result
    return None


def uri(text: str) -> Any:
    return text if NEW else import_module("pydantic").AnyUrl(text)


async def features(client: Any) -> None:
    async def call(name: str, arguments: dict[str, Any], **more: Any) -> Any:
        return await tried(name, client.call_tool(PREFIX + name, arguments, **more))

    async def progressed(done: float, total: float | None, message: str | None) -> None:
        say("progress", [done, total, message])

    await tried("tools", client.list_tools())
    await tried("prompts", client.list_prompts())
    await tried("resources", client.list_resources())
    await tried("templates", client.list_resource_templates())
    await call("echo", {"text": "\u00e4 \u2028 \U0001f600"})
    await call("add", {"a": 2, "b": 3})
    await call("fail", {"why": "because"})
    await call("forbidden", {"a": 1})
    await call("nothing", {})
    await call("count", {"steps": 3}, progress_callback=progressed)
    await call("ask", {})
    await call("sample", {})
    await tried("read", client.read_resource(uri("note://one")))
    await tried("read by template", client.read_resource(uri("note://by/ada")))
    await tried("read nothing", client.read_resource(uri("other://nothing")))
    await tried("prompt", client.get_prompt(PREFIX + "greet", {"name": "Ada"}))
    # 1.x sends no cancellation when its caller is cancelled.
    if NEW:
        waiting = asyncio.create_task(client.call_tool(PREFIX + "wait", {"name": PLAN["name"]}))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await call("was_cancelled", {"name": PLAN["name"]})


async def given(client: Any) -> None:
    """The calls of a plan: for servers with tools of their own."""
    await tried("tools", client.list_tools())
    for name, arguments in PLAN["calls"]:
        await tried(name, client.call_tool(PREFIX + name, arguments))


async def main() -> None:
    finished = False
    try:
        async with asyncio.timeout(90), opened() as client:
            await (given if "calls" in PLAN else features)(client)
            finished = True
    except BaseException as fault:  # noqa: BLE001 - that it could not connect is an outcome too
        while isinstance(fault, BaseExceptionGroup):
            fault = fault.exceptions[0]
        # 1.x may stumble over what a server still says while it closes.
        if not finished:
            say("connection", f"{type(fault).__name__}: {fault}")


asyncio.run(main())
