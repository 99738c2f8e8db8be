"""The face of all upstreams, `/mcp`."""

from dataclasses import dataclass

from fulcrum_mcp.gateway.hub import Hub
from fulcrum_mcp.gateway.incoming import Answer, Incoming

__all__ = ["MergedFace"]


@dataclass(frozen=True, slots=True)
class MergedFace:
    """All upstreams as one."""

    hub: Hub

    async def post(self, incoming: Incoming) -> Answer:
        """A message."""
        return Answer(501)

    async def get(self, incoming: Incoming) -> Answer:
        """A stream."""
        return Answer(501)

    async def delete(self, incoming: Incoming) -> Answer:
        """The end."""
        return Answer(501)
