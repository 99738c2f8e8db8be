"""The face of all upstreams, `/mcp`: names say which one is meant, lists are merged, the rest goes where it belongs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fulcrum_mcp.core.switch import KillSwitch, stop_reason
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.gate import not_listening, refused, stopped
from fulcrum_mcp.gateway.hub import Hub
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.listing import LIST_METHODS
from fulcrum_mcp.gateway.merged_listen import listen_all
from fulcrum_mcp.gateway.merged_lists import (
    BadCursor,
    catalogs_of,
    instructions_of,
    list_in_session,
    merged_capabilities,
    merged_list,
    offers_of,
    ready_catalogs,
)
from fulcrum_mcp.gateway.merged_session import (
    at_peer,
    delete_all,
    get_all,
    initialize_all,
    notify_all,
    request_all,
)
from fulcrum_mcp.gateway.methods import GOVERNED, KNOWN
from fulcrum_mcp.gateway.naming import Offer, renamer, resource_server, split_name
from fulcrum_mcp.gateway.param_headers import encode_header
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.tasks import TASK_METHODS
from fulcrum_mcp.gateway.upcall import CLIENT_INFO
from fulcrum_mcp.gateway.wire import MODERN_VERSIONS, Message, result_message

__all__ = ["MergedFace"]

_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_RESOURCE_NOT_FOUND: Final = -32002
_NAMED: Final = ("tools/call", "prompts/get")
_BY_URI: Final = ("resources/read", "resources/subscribe", "resources/unsubscribe")


@dataclass(frozen=True, slots=True)
class MergedFace:
    """All upstreams as one MCP server."""

    hub: Hub

    @property
    def _exchanges(self) -> Mapping[str, Exchange]:
        return self.hub.exchanges

    async def post(self, incoming: Incoming) -> Answer:
        """A message."""
        message = incoming.message
        assert message is not None
        if message.kind == "request":
            return await self._request(incoming, message)
        if not incoming.modern:
            return await notify_all(self._heard(incoming), incoming, message)
        if message.kind == "notification" and message.method.startswith("notifications/"):
            return Answer(202)
        return refused(message, _INVALID_REQUEST, "Invalid Request: only requests are expected here", status=400)

    def _stopping(self, incoming: Incoming) -> KillSwitch | None:
        """The kill switch that stops this client, whatever it asks for."""
        return next((each.gate.governor.stopping(incoming.principal, "") for each in self._exchanges.values()), None)

    def _heard(self, incoming: Incoming) -> Mapping[str, Exchange]:
        """The upstreams that no kill switch stops for this client."""
        every = self._exchanges
        return {name: each for name, each in every.items() if each.gate.stopping(incoming) is None}

    async def _denied(self, incoming: Incoming, message: Message, switch: KillSwitch) -> Answer:
        governor = next(iter(self._exchanges.values())).gate.governor
        return await stopped(governor, incoming, message, switch)

    async def _all_denied(self, incoming: Incoming, message: Message, able: Sequence[Exchange]) -> Answer | None:
        """The answer where kill switches stop every upstream that could give one."""
        switches = [each.gate.stopping(incoming) for each in able]
        if not switches or switches[0] is None or None in switches:
            return None
        return await self._denied(incoming, message, switches[0])

    async def _request(self, incoming: Incoming, message: Message) -> Answer:
        if message.method not in GOVERNED:  # those their exchange denies, with their own words
            switch = self._stopping(incoming)
            if switch is not None:
                return await self._denied(incoming, message, switch)
        routes = {
            **dict.fromkeys(LIST_METHODS, self._list),
            **dict.fromkeys(_NAMED, self._named),
            **dict.fromkeys(_BY_URI, self._by_uri),
            **dict.fromkeys(TASK_METHODS, self._task),
            "completion/complete": self._complete,
        }
        otherwise = self._modern if incoming.modern else self._handshake
        return await routes.get(message.method, otherwise)(incoming, message)

    async def get(self, incoming: Incoming) -> Answer:
        """The streams of a session, as one."""
        switch = self._stopping(incoming)
        if switch is not None:
            return not_listening(stop_reason(switch))
        return await get_all(self._exchanges, incoming)

    async def delete(self, incoming: Incoming) -> Answer:
        """The end of a session, everywhere."""
        return await delete_all(self._exchanges, incoming)

    async def _modern(self, incoming: Incoming, message: Message) -> Answer:
        if message.method == "server/discover":
            return await self._discover(message)
        if message.method == "subscriptions/listen":
            heard = self._heard(incoming)
            catalogs = [each for each in await self._catalogs(incoming) if each.name in heard]
            return await listen_all(heard, catalogs, incoming, message)
        return await self._other(incoming, message)

    async def _handshake(self, incoming: Incoming, message: Message) -> Answer:
        if message.method == "initialize":
            denied = await self._all_denied(incoming, message, list(self._exchanges.values()))
            return denied or await initialize_all(self._exchanges, self.hub.sessions, incoming, message)
        if message.method == "ping":
            return Answer(200, result_message(message.id, {}))
        if message.method == "logging/setLevel":
            able = [item for item in self._exchanges.values() if "logging" in item.catalog.capabilities]
            denied = await self._all_denied(incoming, message, able)
            heard = [each for each in able if each.gate.stopping(incoming) is None]
            return denied or await request_all(heard, incoming, message)
        return await self._other(incoming, message)

    async def _catalogs(self, incoming: Incoming) -> list[Catalog]:
        """Those that speak the client's era."""
        if incoming.modern:
            return [catalog for catalog in await ready_catalogs(self._exchanges) if catalog.modern]
        peers = self._exchanges if incoming.session is None else incoming.session.peers
        return await ready_catalogs({name: item for name, item in self._exchanges.items() if name in peers})

    async def _offers(self, incoming: Incoming) -> Sequence[Offer]:
        return offers_of(await self._catalogs(incoming), None if incoming.modern else incoming.session)

    async def _discover(self, message: Message) -> Answer:
        """Offered only where every upstream speaks this era: else a client that knows both falls back, and sees all.

        One that is still starting may turn out to be older: initialize will wait for it.
        """
        catalogs = catalogs_of(self._exchanges)
        if all(catalog.modern is not False for catalog in catalogs):
            await ready_catalogs(self._exchanges)
        starting = [item.name for item in catalogs if item.modern is None and item.failure is None]
        old = [item.name for item in catalogs if item.modern is False] or starting
        catalogs = [catalog for catalog in catalogs if catalog.ready]
        if old:
            return refused(message, _METHOD_NOT_FOUND, _too_new(old), status=404)
        missing = [name for name in self._exchanges if all(catalog.name != name for catalog in catalogs)]
        result = {
            "resultType": "complete",
            "supportedVersions": list(MODERN_VERSIONS),
            "capabilities": merged_capabilities([catalog.capabilities for catalog in catalogs]),
            "instructions": instructions_of(catalogs, missing),
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": CLIENT_INFO},
        }
        return Answer(200, result_message(message.id, result))

    async def _list(self, incoming: Incoming, message: Message) -> Answer:
        heard = self._heard(incoming)
        catalogs = [each for each in await self._catalogs(incoming) if each.name in heard]
        old = [catalog.name for catalog in catalogs_of(self._exchanges) if catalog.modern is False]
        if incoming.modern and old and not catalogs:
            return refused(message, _METHOD_NOT_FOUND, _too_new(old), status=404)
        exchange = next(iter(self._exchanges.values()), None)
        if exchange is None:
            return Answer(200, result_message(message.id, {LIST_METHODS[message.method][0]: []}))
        pending = Pending(
            request_id=message.id or "",
            method=message.method,
            server="",
            principal=incoming.principal,
            context=incoming.context,
            snapshot=exchange.gate.governor.snapshot,
            modern=incoming.modern,
        )
        session = None if incoming.modern else incoming.session
        cursor = message.params.get("cursor")
        if session is not None and cursor is None:
            await list_in_session(catalogs, session, incoming.principal, message.method)
        try:
            result = await merged_list(self._exchanges, catalogs, pending, cursor, session)
        except BadCursor:
            return refused(message, _INVALID_PARAMS, "Invalid params: unknown cursor; begin the list anew")
        return Answer(200, result_message(message.id, result))

    async def _to(self, server: str, incoming: Incoming, message: Message) -> Answer:
        """Hand a request, rewritten to the upstream's own names, to its exchange."""
        exchange = self._exchanges[server]
        if incoming.modern and exchange.catalog.modern is False:
            text = f"server {server} does not speak {incoming.version}; connect with initialize"
            return refused(message, _INVALID_PARAMS, text)
        if not incoming.modern and incoming.session is not None and server not in incoming.session.peers:
            text = (
                f"server {server} has no part in this session: it was not available when that began, or knows no "
                f"sessions; initialize anew, or connect to /servers/{server}/mcp"
            )
            return refused(message, _INVALID_PARAMS, text)
        there = at_peer(incoming, server, message)
        return await exchange.request(there, message, renamer(server))

    async def _named(self, incoming: Incoming, message: Message) -> Answer:
        found = split_name(message.params.get("name"))
        if found is None or found[0] not in self._exchanges:
            what = message.params.get("name")
            return refused(message, _INVALID_PARAMS, f"Unknown name: {what!s:.100} (names are <server>__<name>)")
        server, name = found
        there = message.with_params({**message.params, "name": name})
        return await self._to(server, _named_as(incoming, name), there)

    async def _by_uri(self, incoming: Incoming, message: Message) -> Answer:
        uri = message.params.get("uri")
        route = resource_server(await self._offers(incoming), uri) if isinstance(uri, str) else None
        if route is None or route[0] not in self._exchanges:
            code = _INVALID_PARAMS if incoming.modern else _RESOURCE_NOT_FOUND
            return refused(message, code, f"Resource not found: {uri!s:.200}")
        server, own = route
        there = message if own == uri else message.with_params({**message.params, "uri": own})
        return await self._to(server, _named_as(incoming, own), there)

    async def _complete(self, incoming: Incoming, message: Message) -> Answer:
        ref = message.params.get("ref")
        ref = ref if isinstance(ref, dict) else {}
        if ref.get("type") == "ref/prompt":
            found = split_name(ref.get("name"))
            own: dict[str, Any] = {} if found is None else {"name": found[1]}
        else:
            uri = ref.get("uri")
            found = resource_server(await self._offers(incoming), uri) if isinstance(uri, str) else None
            own = {} if found is None else {"uri": found[1]}
        if found is None or found[0] not in self._exchanges:
            return refused(message, _INVALID_PARAMS, "Invalid params: ref names nothing that is listed")
        return await self._to(found[0], incoming, message.with_params({**message.params, "ref": {**ref, **own}}))

    async def _task(self, incoming: Incoming, message: Message) -> Answer:
        if message.method == "tasks/list":
            return refused(message, _METHOD_NOT_FOUND, "tasks/list: ask /servers/<name>/mcp", status=_status(incoming))
        servers = self.hub.tasks.servers(incoming.principal, message.params.get("taskId"))
        if len(servers) != 1:
            return refused(message, _INVALID_PARAMS, "Invalid params: no such task")
        return await self._to(servers[0], incoming, message)

    async def _other(self, incoming: Incoming, message: Message) -> Answer:
        """A method that names no upstream: it can only mean the one there is."""
        only: Sequence[str] = list(self._exchanges)
        if len(only) == 1 and message.method not in KNOWN:
            return await self._to(only[0], incoming, message)
        text = f"Method not found: {message.method:.100}; for one server's own methods use /servers/<name>/mcp"
        return refused(message, _METHOD_NOT_FOUND, text, status=_status(incoming))


def _too_new(old: Sequence[str]) -> str:
    return (
        f"{MODERN_VERSIONS[-1]} is not spoken (yet) by {', '.join(old)}; connect with initialize, "
        "or to /servers/<name>/mcp of a server that speaks it"
    )


def _status(incoming: Incoming) -> int:
    """HTTP status of an unknown method: the modern era wants 404."""
    return 404 if incoming.modern else 200


def _named_as(incoming: Incoming, name: str) -> Incoming:
    """The same request with the upstream's own name in its `Mcp-Name` header."""
    if not any(pair[0] == b"mcp-name" for pair in incoming.headers):
        return incoming
    headers = [pair for pair in incoming.headers if pair[0] != b"mcp-name"]
    return replace(incoming, headers=[*headers, (b"mcp-name", encode_header(name).encode())])
