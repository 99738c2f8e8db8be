"""Sessions of the merged face (handshake era): one at every upstream, opened together, ended together."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fulcrum_mcp.core.switch import stop_reason
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.ids import new_id
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.merged_lists import instructions_of, merged_capabilities
from fulcrum_mcp.gateway.naming import renamer, split_id
from fulcrum_mcp.gateway.sessions import Session, Sessions
from fulcrum_mcp.gateway.streams import closing, collect, merge, open_all
from fulcrum_mcp.gateway.upcall import CLIENT_INFO, Via
from fulcrum_mcp.gateway.wire import (
    HANDSHAKE_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    MODERN_VERSIONS,
    Message,
    encode,
    error_message,
    result_message,
)

__all__ = ["at_peer", "delete_all", "get_all", "initialize_all", "notify_all", "request_all"]

_PATIENCE: Final = 15.0
"""Seconds for the slowest upstream. Clients give up on a server after 30 s or so, discovery included."""
_GRACE: Final = 25.0
"""Seconds since an upstream was first asked, after which it is waited for no longer than one that fails."""
_FAILING: Final = 3.0
"""Seconds for an upstream that could not be reached before."""
_OK: Final = 300


def at_peer(incoming: Incoming, server: str, message: Message | None = None) -> Incoming:
    """The same request as one upstream gets it: in the version of its own session."""
    peer = None if incoming.session is None else incoming.session.peers.get(server)
    headers = incoming.headers
    version = incoming.version
    if peer is not None and peer.version:
        version = peer.version
        headers = [pair for pair in headers if pair[0] != b"mcp-protocol-version"]
        headers.append((b"mcp-protocol-version", version.encode()))
    return replace(incoming, headers=headers, version=version, message=message or incoming.message)


def _renumbered(message: Message) -> Message:
    document = {**message.document, "id": f"fulcrum-{new_id()}"}
    return Message(document, encode(document), message.kind)


async def _hello(exchange: Exchange, incoming: Incoming, message: Message) -> tuple[Via, dict[str, Any]] | str:
    """Open one upstream's session; returns it and its initialize result, or why it could not be opened."""
    patience = min(_PATIENCE, exchange.catalog.patience(_GRACE, _FAILING))
    switch = exchange.gate.stopping(incoming)
    if switch is not None:
        return stop_reason(switch).message
    try:
        async with asyncio.timeout(patience):
            answer = await exchange.request(incoming, message)
            session = None if answer.upstream is None else answer.upstream.headers.get("mcp-session-id")
            response = await collect(answer)
    except TimeoutError:
        return f"upstream {exchange.name}: initialize not answered within {patience:.0f} s; connect again when it is up"
    result = None if response is None else response.get("result")
    if not isinstance(result, dict):
        return _refusal(exchange, response)
    version = result.get("protocolVersion")
    return Via(version if isinstance(version, str) else LATEST_HANDSHAKE_VERSION, session), result


def _refusal(exchange: Exchange, response: Mapping[str, Any] | None) -> str:
    """Why an upstream opened no session."""
    error = None if response is None else response.get("error")
    text = error.get("message") if isinstance(error, dict) else None
    said = text if isinstance(text, str) else "initialize refused"
    if exchange.catalog.modern:
        said += f" (it speaks {MODERN_VERSIONS[-1]}, perhaps nothing older: use a client of that version)"
    return said if said.startswith("upstream ") else f"upstream {exchange.name}: {said}"


async def initialize_all(
    exchanges: Mapping[str, Exchange], sessions: Sessions, incoming: Incoming, message: Message
) -> Answer:
    """Open a session at every upstream; those that fail are left out and named in the instructions."""
    incoming = replace(incoming, session=None)
    hellos = await asyncio.gather(
        *(_hello(exchange, incoming, _renumbered(message)) for exchange in exchanges.values())
    )
    peers: dict[str, Via] = {}
    offered: list[Mapping[str, Any]] = []
    missing: list[str] = []
    told: list[str] = []
    for exchange, hello in zip(exchanges.values(), hellos, strict=True):
        if isinstance(hello, str):
            missing.append(exchange.name)
            told.append(hello)
            continue
        via, result = hello
        peers[exchange.name] = via
        capabilities = result.get("capabilities")
        offered.append(capabilities if isinstance(capabilities, dict) else {})
        exchange.catalog.describe(result)
    if exchanges and not peers:
        return Answer(200, error_message(message.id, 502001, "; ".join(told)))
    requested = message.params.get("protocolVersion")
    result = {
        "protocolVersion": requested if requested in HANDSHAKE_VERSIONS else LATEST_HANDSHAKE_VERSION,
        "capabilities": merged_capabilities(offered),
        "serverInfo": CLIENT_INFO,
        "instructions": instructions_of([exchanges[name].catalog for name in peers], missing),
    }
    answer = Answer(200, result_message(message.id, result))
    answer.session = sessions.create(incoming.principal, peers, incoming.context.client)
    return answer


def _peers(exchanges: Mapping[str, Exchange], session: Session | None) -> list[Exchange]:
    if session is None:
        return list(exchanges.values())
    return [exchanges[name] for name in session.peers if name in exchanges]


async def notify_all(exchanges: Mapping[str, Exchange], incoming: Incoming, message: Message) -> Answer:
    """A notification to every upstream; a response to the one whose request it answers."""
    if message.kind == "response":
        origin = split_id(message.id)
        if origin is None or origin[0] not in exchanges:
            return Answer(202)
        document = {**message.document, "id": origin[1]}
        back = Message(document, encode(document), "response")
        return await exchanges[origin[0]].notify(at_peer(incoming, origin[0], back), back)
    answers = await asyncio.gather(
        *(
            exchange.notify(at_peer(incoming, exchange.name), message)
            for exchange in _peers(exchanges, incoming.session)
        )
    )
    refused = [answer for answer in answers if answer.status >= _OK]
    return refused[0] if answers and len(refused) == len(answers) else Answer(202)


async def request_all(exchanges: Sequence[Exchange], incoming: Incoming, message: Message) -> Answer:
    """A request that concerns every upstream (logging/setLevel): an empty result if one of them took it."""
    answers = await open_all(
        exchange.request(at_peer(incoming, exchange.name), _renumbered(message)) for exchange in exchanges
    )
    responses = [await collect(answer) for answer in answers]
    if any(response is not None and "result" in response for response in responses) or not responses:
        return Answer(200, result_message(message.id, {}))
    error = next((response["error"] for response in responses if response is not None), None)
    return Answer(200, encode({"jsonrpc": "2.0", "id": message.id, "error": error}))


async def get_all(exchanges: Mapping[str, Exchange], incoming: Incoming) -> Answer:
    """One stream of all upstreams' streams; with `Last-Event-ID`, the rest of the one it names."""
    last = incoming.header("last-event-id")
    session = incoming.session
    if last is not None:
        kept = None if session is None else session.resume(last)
        if kept is not None:
            return Answer(200, events=kept[0].follow(kept[1]))
        server, separator, event_id = last.partition(":")
        if not separator or server not in exchanges:
            return Answer(400, error_message(None, -32600, "Last-Event-ID is not one of this gateway"))
        there = at_peer(incoming, server)
        headers = [pair for pair in there.headers if pair[0] != b"last-event-id"]
        there.headers = [*headers, (b"last-event-id", event_id.encode())]
        there.values = {**there.values, "last-event-id": [event_id]}
        return await exchanges[server].listen(there, renamer(server))
    answers = await open_all(
        exchange.listen(at_peer(incoming, exchange.name), renamer(exchange.name))
        for exchange in _peers(exchanges, session)
    )
    streams = [answer for answer in answers if answer.events is not None]
    if not streams:
        return Answer(405, headers=[("allow", "POST, DELETE")])
    return Answer(200, events=merge(streams), close=closing(streams))


async def delete_all(exchanges: Mapping[str, Exchange], incoming: Incoming) -> Answer:
    """End the session at every upstream."""
    await asyncio.gather(
        *(exchange.end(at_peer(incoming, exchange.name)) for exchange in _peers(exchanges, incoming.session))
    )
    return Answer(200)
