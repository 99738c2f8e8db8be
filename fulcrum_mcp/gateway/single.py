"""The face of one upstream, `/servers/<name>/mcp`: transparent, names as they are."""

from dataclasses import dataclass
from typing import Final

from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.gateway.wire import HANDSHAKE_VERSIONS, Message, error_message

__all__ = ["SingleFace"]

_BAD_REQUEST: Final = 400
_UNSUPPORTED_VERSION: Final = -32022


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
        if incoming.modern and self.exchange.catalog.modern is False and message.method != "server/discover":
            return self._too_new(incoming, message)
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

    def _too_new(self, incoming: Incoming, message: Message) -> Answer:
        """A server of the handshake era may well answer what it does not understand, and a client take it for true."""
        text = f"Unsupported protocol version: {self.exchange.name} does not speak it; connect with initialize"
        data = {"supported": HANDSHAKE_VERSIONS, "requested": incoming.version}
        return Answer(_BAD_REQUEST, error_message(message.id, _UNSUPPORTED_VERSION, text, data))

    async def get(self, incoming: Incoming) -> Answer:
        """The stream of a session."""
        return await self.exchange.listen(incoming)

    async def delete(self, incoming: Incoming) -> Answer:
        """The end of a session."""
        return await self.exchange.end(incoming)
