"""MCP servers behind the gateway: Streamable HTTP and stdio."""
