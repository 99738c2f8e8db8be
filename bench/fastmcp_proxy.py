"""fastmcp's proxy at its best: one client shared by all calls. Runs in an environment of its own, see `columns`."""

import asyncio
import sys

from fastmcp import Client
from fastmcp.server.providers.proxy import FastMCPProxy

__all__: list[str] = []


async def _serve(port: int, upstream: str) -> None:
    shared = Client(upstream)
    proxy = FastMCPProxy(client_factory=lambda: shared, name="bench")
    async with shared:
        await proxy.run_http_async(
            host="127.0.0.1", port=port, path="/mcp", show_banner=False, log_level="ERROR", stateless_http=True
        )


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
