"""The gate: from a client's request to a ticket, or to the answer that refuses it."""

import time
from dataclasses import dataclass
from typing import Any, Final

from fulcrum_mcp.core.call import Call
from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.core.switch import KillSwitch
from fulcrum_mcp.gateway.catalog import Catalog, ToolEntry
from fulcrum_mcp.gateway.denial import DENIED_CODE, Denial, denial_message
from fulcrum_mcp.gateway.govern import Governor
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.methods import GOVERNED, TARGET_MEMBER
from fulcrum_mcp.gateway.param_headers import param_mismatch
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.relay import failure_message
from fulcrum_mcp.gateway.rounds import Resumed, Rounds, StateRefused
from fulcrum_mcp.gateway.ticket import Ticket
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.gateway.wire import Message, error_message

__all__ = ["Gate", "mine_of", "not_listening", "refused", "stopped"]

_HEADER_MISMATCH: Final = -32020
_INVALID_PARAMS: Final = -32602
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_AS_ERROR: Final = "error"
_MAX_TARGET: Final = 8192
"""Characters; the name stands in every record of the call."""


def refused(message: Message, code: int, text: str, *, status: int = 200) -> Answer:
    """A protocol error as an answer."""
    return Answer(status, error_message(message.id, code, text))


def mine_of(incoming: Incoming, catalog: Catalog) -> dict[str, ToolEntry] | None:
    """What the client's session shows otherwise than the catalog; None for clients without one."""
    if incoming.modern or incoming.session is None:
        return None
    return incoming.session.learned(catalog.name, catalog.announced)


async def stopped(
    governor: Governor, incoming: Incoming, message: Message, switch: KillSwitch, server: str = ""
) -> Answer:
    """The answer to a request that no policy judges and a kill switch stops. `server`: the one it is for."""
    method = message.method
    arguments = {key: value for key, value in message.params.items() if key != "_meta"}
    call = Call(f"call_{new_id()}", incoming.principal, method, server, method, arguments, incoming.context)
    denial = await governor.stop(call, switch)
    governor.settler.figures.denied(server, method, denial.effect, denial.reasons[0].code)
    text = denial_message(
        message.id, denial, method=method, modern=incoming.modern, structured=False, deny_as=_AS_ERROR
    )
    headers = [] if denial.retry_after is None else [("retry-after", str(denial.retry_after))]
    return Answer(200, text, headers=headers)


def not_listening(*reasons: Reason) -> Answer:
    """The answer to a client that wants to listen (GET) and may not: no record and no decision's id."""
    text = " ".join(f"Denied ({reason.code}): {reason.message}." for reason in reasons)
    return Answer(_FORBIDDEN, error_message(None, DENIED_CODE, text))


@dataclass(slots=True)
class Gate:
    """Judges the requests for one upstream."""

    catalog: Catalog
    governor: Governor
    rounds: Rounds

    async def judge(self, incoming: Incoming, message: Message, pending: Pending) -> Message | Answer:
        """Puts a ticket into `pending` and returns the message to forward, or returns the answer that refuses it."""
        method, params = message.method, message.params
        asked = _asked(method, params)
        if isinstance(asked, str):
            return refused(message, _INVALID_PARAMS, f"Invalid params: {method:.100} {asked}")
        target, arguments = asked
        entry: ToolEntry | None = None
        if method == "tools/call":
            entry = (pending.mine or {}).get(target) or await self.catalog.tool(target, self._via(incoming))
            if entry is not None:
                pending.structured = entry.structured
                mismatch = _header_mismatch(incoming, entry, arguments)
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
        began = time.perf_counter_ns()
        judged = await self._judge(call, pending, resumed.root)
        settler = self.governor.settler
        if isinstance(judged, Denial):
            settler.figures.denied(call.server, method, judged.effect, judged.reasons[0].code)
            if settler.tracer is not None and pending.trace is not None:
                settler.tracer.denied(pending.trace, call, judged, time.perf_counter_ns() - began)
            return self._denied(incoming, message, pending, judged)
        judged.trace = pending.trace
        settler.figures.stage("policy", judged.timings[0])
        settler.figures.stage("journal", judged.timings[1])
        pending.ticket = judged
        return message

    def stopping(self, incoming: Incoming) -> KillSwitch | None:
        """The kill switch that stops now whatever this client says to this upstream."""
        return self.governor.stopping(incoming.principal, self.catalog.name)

    async def _judge(self, call: Call, pending: Pending, root: Ticket | None) -> Ticket | Denial:
        """A call whose later leg is denied, or whose client went meanwhile, is settled at its estimate."""
        admitted = False
        try:
            judged = await self.governor.judge(call, pending.snapshot, root)
            admitted = isinstance(judged, Ticket)
        finally:
            if root is not None and not admitted:
                self.governor.settler.give_up(root)
        return judged

    def _denied(self, incoming: Incoming, message: Message, pending: Pending, denial: Denial) -> Answer:
        catalog = self.catalog
        if denial.reasons[0].code == "unknown_tool" and not catalog.ready:
            silent = f"upstream {catalog.name}: has not answered yet; try again when it has started"
            return Answer(200, failure_message(pending, catalog.failure or silent))
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
        if incoming.session is None or incoming.modern or self.stopping(incoming) is not None:
            return None
        peer = incoming.session.peers.get(self.catalog.name)
        return None if peer is None else Via(incoming.version or peer.version, peer.session, incoming.principal)


def _header_mismatch(incoming: Incoming, entry: ToolEntry, arguments: dict[str, Any] | None) -> str | None:
    if not (incoming.over_http and incoming.modern and entry.param_headers):
        return None
    return param_mismatch(entry.param_headers, arguments, incoming.values)


def _asked(method: str, params: dict[str, Any]) -> tuple[str, dict[str, Any] | None] | str:
    """What is asked for, by name, with which arguments; or what is wrong with it. `null` is judged and sent as that."""
    target: Any = method
    arguments: Any = {key: value for key, value in params.items() if key != "_meta"}
    if method in GOVERNED:
        target, arguments = params.get(TARGET_MEMBER[method]), params.get("arguments", {})
    if not isinstance(target, str) or not isinstance(arguments, dict | None):
        return "takes a name and an object"
    if len(target) > _MAX_TARGET:
        return f"takes a name of at most {_MAX_TARGET} characters"
    return target, arguments


def _with_state(params: dict[str, Any], upstream_state: str | None) -> dict[str, Any]:
    kept = {key: value for key, value in params.items() if key != "requestState"}
    if upstream_state is not None:
        kept["requestState"] = upstream_state
    return kept
