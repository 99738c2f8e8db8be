"""`fulcrum demo`: a gateway, two real MCP servers that others wrote, and an agent that tries its luck.

Each step says beforehand what must come of it; `--exit` answers 0 only if all of it did. The gateway is the real one,
`fulcrum up` in a process of its own, and the agent is the MCP SDK's client: only this package, the tests and the bench
import the SDK.
"""
