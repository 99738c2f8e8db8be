"""The face of one upstream, `/servers/<name>/mcp`: transparent, names as they are."""

from dataclasses import dataclass

from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.upcall import Via

__all__ = ["SingleFace"]


@dataclass(frozen=True, slots=True)
class SingleFace:
    """Passes everything to one exchange; only the session's name is ours."""

    exchange: Exchange
    sessions: Sessions

    async def post(self, incoming: Incoming) -> Answer:
        """A message."""
        message = incoming.message
        assert message is not None
        if message.kind != "request":
            return await self.exchange.notify(incoming, message)
        answer = await self.exchange.request(incoming, message)
        if message.method == "initialize" and not incoming.modern and answer.upstream is not None:
            upstream_session = answer.upstream.headers.get("mcp-session-id")
            if upstream_session is not None:
                version = message.params.get("protocolVersion")
                via = Via(version if isinstance(version, str) else "", upstream_session)
                answer.session = self.sessions.create(
                    incoming.principal, {self.exchange.name: via}, incoming.context.client
                )
        return answer

    async def get(self, incoming: Incoming) -> Answer:
        """The stream of a session."""
        return await self.exchange.listen(incoming)

    async def delete(self, incoming: Incoming) -> Answer:
        """The end of a session."""
        return await self.exchange.end(incoming)
