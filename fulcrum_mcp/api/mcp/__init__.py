"""The MCP face: ASGI endpoint, strict wire codec, stdio face."""
