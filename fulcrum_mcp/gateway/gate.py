"""The gate: from a client's request to a ticket, or to the answer that refuses it."""

from dataclasses import dataclass
from typing import Any, Final

from fulcrum_mcp.core.call import Call
from fulcrum_mcp.gateway.catalog import Catalog, ToolEntry
from fulcrum_mcp.gateway.denial import Denial, denial_message
from fulcrum_mcp.gateway.govern import Governor
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.methods import GOVERNED, TARGET_MEMBER
from fulcrum_mcp.gateway.param_headers import param_mismatch
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.relay import failure_message
from fulcrum_mcp.gateway.rounds import Resumed, Rounds, StateRefused
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.gateway.wire import Message, error_message

__all__ = ["Gate", "refused"]

_HEADER_MISMATCH: Final = -32020
_INVALID_PARAMS: Final = -32602
_BAD_REQUEST: Final = 400


def refused(message: Message, code: int, text: str, *, status: int = 200) -> Answer:
    """A protocol error as an answer."""
    return Answer(status, error_message(message.id, code, text))


@dataclass(slots=True)
class Gate:
    """Judges the requests for one upstream."""

    catalog: Catalog
    governor: Governor
    rounds: Rounds

    async def judge(self, incoming: Incoming, message: Message, pending: Pending) -> Message | Answer:
        """Puts a ticket into `pending` and returns the message to forward, or returns the answer that refuses it."""
        method, params = message.method, message.params
        target = params.get(TARGET_MEMBER[method]) if method in GOVERNED else method
        arguments = params.get("arguments", {}) if method in GOVERNED else _without_meta(params)
        if not isinstance(target, str) or not isinstance(arguments, dict):
            return refused(message, _INVALID_PARAMS, f"Invalid params: {method} takes a name and an object")
        entry: ToolEntry | None = None
        if method == "tools/call":
            entry = await self.catalog.tool(target, self._via(incoming))
            if entry is not None:
                pending.structured = entry.structured
                if incoming.over_http and incoming.modern and entry.param_headers:
                    mismatch = param_mismatch(entry.param_headers, arguments, incoming.values)
                    if mismatch is not None:
                        return refused(message, _HEADER_MISMATCH, mismatch, status=_BAD_REQUEST)
        resumed = Resumed(None, None, 0)
        if incoming.modern and "requestState" in params:
            try:
                state = params["requestState"]
                resumed = self.rounds.resume(state, incoming.principal, self.catalog.name, method, target, arguments)
            except StateRefused:
                return refused(message, _INVALID_PARAMS, "Invalid or expired requestState", status=_BAD_REQUEST)
            message = message.with_params(_with_state(params, resumed.upstream_state))
        call = Call(
            id=f"call_{new_id()}" if resumed.root is None else resumed.root.call.id,
            principal=incoming.principal,
            method=method,
            server=self.catalog.name,
            target=target,
            arguments=arguments,
            context=incoming.context,
            tool=None if entry is None else entry.tool,
            leg=resumed.leg,
            responses=params.get("inputResponses"),
        )
        judged = await self.governor.judge(call, pending.snapshot, resumed.root)
        if not isinstance(judged, Denial):
            pending.ticket = judged
            return message
        if resumed.root is not None:
            self.governor.settler.give_up(resumed.root)
        return self._denied(incoming, message, pending, judged)

    def _denied(self, incoming: Incoming, message: Message, pending: Pending, denial: Denial) -> Answer:
        catalog = self.catalog
        if denial.reasons[0].code == "unknown_tool" and not catalog.ready and catalog.failure is not None:
            return Answer(200, failure_message(pending, catalog.failure))
        text = denial_message(
            message.id,
            denial,
            method=message.method,
            modern=incoming.modern,
            structured=pending.structured,
            deny_as=pending.snapshot.limits.deny_as,
        )
        headers = [] if denial.retry_after is None else [("retry-after", str(denial.retry_after))]
        return Answer(200, text, headers=headers)

    def _via(self, incoming: Incoming) -> Via | None:
        """The client's own session, through which an unknown tool is looked for."""
        if incoming.session is None or incoming.modern:
            return None
        peer = incoming.session.peers.get(self.catalog.name)
        return None if peer is None else Via(incoming.version or peer.version, peer.session)


def _without_meta(params: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != "_meta"}


def _with_state(params: dict[str, Any], upstream_state: str | None) -> dict[str, Any]:
    kept = {key: value for key, value in params.items() if key != "requestState"}
    if upstream_state is not None:
        kept["requestState"] = upstream_state
    return kept
