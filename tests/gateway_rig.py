"""The gateway in process, for tests: real faces, journal, policies; memory stores; upstreams that do as they are told.

    async with open_rig(ScriptedServer("files")) as rig:
        reply = await rig.client("/servers/files/mcp").request("tools/call", {"name": "echo", "arguments": {}})

Bytes go in and out through ASGI as a server would pass them. For Hypothesis, which wants plain functions, `LoopRig`
keeps one rig on one loop.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from asgi_driver import Asgi, Exchanged, HeaderLines
from scripted_server import HANDSHAKE, MODERN, ScriptedServer

from fulcrum_adapters.memory.audit import MemoryAuditLog
from fulcrum_adapters.memory.history import MemoryHistory
from fulcrum_adapters.memory.identity import MemoryIdentity
from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.api.mcp.endpoint import Bounds, Face, McpEndpoint
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.mcp.routing import Routing
from fulcrum_mcp.api.siblings import Siblings
from fulcrum_mcp.core.audit import RecordDraft, RecordRef
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.call import Phase, Principal
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo, PolicyModule, PolicySource
from fulcrum_mcp.core.scope import BudgetIndex
from fulcrum_mcp.core.switch import KillSwitch, SwitchIndex
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.gate import Gate
from fulcrum_mcp.gateway.govern import Governor
from fulcrum_mcp.gateway.hub import Hub
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.gateway.merged import MergedFace
from fulcrum_mcp.gateway.param_headers import encode_header
from fulcrum_mcp.gateway.records import FINISHED
from fulcrum_mcp.gateway.respond import Responder
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.gateway.snapshot import Limits, Snapshot, SnapshotHolder
from fulcrum_mcp.gateway.tasks import Tasks
from fulcrum_mcp.ports import AuditLog, BudgetLedger, PolicyEngine, Upstream

__all__ = [
    "ALLOW_ALL",
    "KEY",
    "PRINCIPAL",
    "Client",
    "LoopRig",
    "RecordingEngine",
    "Rig",
    "engine_of",
    "loop_rig",
    "open_rig",
]

ALLOW_ALL: Final = "package fulcrum.policies.allow_all\n\nimport rego.v1\n\nallow := true\n"
"""Everything, unknown methods included."""

KEY: Final = "key-of-ann"
PRINCIPAL: Final = Principal("acme", "ann", "k1", ("dev",), frozenset({"tool:call"}))

Result = TypeVar("Result")


def engine_of(*texts: str, data: Mapping[str, Any] | None = None) -> RegoEngine:
    """A Rego engine over these modules, each with its `package` line. Raises `Invalid`."""
    modules = tuple(PolicyModule(f"policy{number}.rego", text) for number, text in enumerate(texts))
    return RegoEngine(PolicySource(modules, data or {}), max_input=1 << 20)


class RecordingEngine:
    """Another engine, and every document it was asked to judge."""

    info: PolicyInfo

    def __init__(self, engine: PolicyEngine) -> None:
        self.engine = engine
        self.info = engine.info
        self.asked: list[tuple[Phase, bytes]] = []

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        self.asked.append((phase, document))
        return await self.engine.evaluate(phase, document)

    def documents(self, phase: Phase) -> list[Any]:
        """What was judged in one phase, parsed."""
        return [json.loads(document) for asked, document in self.asked if asked == phase]


class Ends:
    """Stands before a log and beside its journal: how many ends of calls were told, and how many are written."""

    def __init__(self, log: AuditLog) -> None:
        self.log = log
        self.writer = log.writer
        self.told = 0
        self.written = 0

    def watch(self, journal: Journal) -> None:
        """Count what is told to this journal from now on."""
        settle = journal.settle

        def told(settlement: Settlement) -> None:
            self.told += settlement.build is not None
            settle(settlement)

        journal.settle = told  # type: ignore[method-assign]

    def heads(self) -> Mapping[str, int]:
        return self.log.heads()

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        written = self.log.append(drafts)
        self.written += sum(draft.type == FINISHED for draft in drafts)
        return written

    def prepare(self, drafts: Sequence[RecordDraft]) -> Any:
        return sum(draft.type == FINISHED for draft in drafts), self.log.prepare(drafts)

    def write(self, block: Any) -> None:
        self.log.write(block[1])

    def conclude(self, block: Any, *, written: bool) -> None:
        self.log.conclude(block[1], written=written)
        self.written += block[0] if written else 0

    def close(self) -> None:
        self.log.close()


@dataclass(slots=True)
class Rig:
    """A gateway. `engine` records; `log.lines` are the audit records; `servers` the upstreams by name."""

    app: Asgi
    endpoint: McpEndpoint
    hub: Hub
    journal: Journal
    holder: SnapshotHolder
    engine: RecordingEngine
    ledger: BudgetLedger
    log: AuditLog
    history: MemoryHistory
    servers: Mapping[str, ScriptedServer]
    ends: Ends
    _revision: int = field(default=1)

    async def post(self, path: str, body: bytes | Sequence[bytes], *headers: tuple[str, str]) -> Exchanged:
        """These bytes and just these headers (Host, content-type and the key are added unless named)."""
        return await self.app.request("POST", path, with_defaults(headers), body)

    def client(self, path: str, *, modern: bool = True, key: str = KEY) -> "Client":
        """A well-behaved client of one face."""
        return Client(self, path, modern, key)

    def use(self, engine: PolicyEngine, **changes: Any) -> RecordingEngine:
        """Swap the snapshot: other policies from the next call on."""
        self._revision += 1
        self.engine = RecordingEngine(engine)
        current = self.holder.current
        self.holder.swap(replace(current, revision=str(self._revision), engine=self.engine, **changes))
        return self.engine

    def throw(self, *switches: KillSwitch) -> None:
        """Swap the snapshot: these kill switches and no others, from now on."""
        self._revision += 1
        self.holder.swap(replace(self.holder.current, revision=str(self._revision), switches=SwitchIndex(switches)))

    def forget(self) -> None:
        """Empty what was kept of earlier calls: what upstreams received and policies were asked."""
        self.engine.asked.clear()
        for server in self.servers.values():
            server.requests.clear()

    async def settled(self) -> None:
        """Wait until every call that has ended is in the log as ended."""
        async with asyncio.timeout(10):
            while self.journal._settlements or self.ends.written < self.ends.told:  # noqa: ASYNC110 - nobody else waits for it
                await asyncio.sleep(0.001)

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The audit records whose type ends so, parsed."""
        assert isinstance(self.log, MemoryAuditLog)
        return [record for record in map(json.loads, self.log.lines) if record["type"].endswith(kind)]

    @property
    def forwarded_blindly(self) -> int:
        """Calls forwarded without a decision: 0."""
        return sum(exchange.counted["forwarded_without_decision"] for exchange in self.hub.exchanges.values())


def with_defaults(headers: Iterable[tuple[str, str]]) -> HeaderLines:
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    named = {name for name, _ in lines}
    defaults = {
        b"host": b"127.0.0.1:8080",
        b"content-type": b"application/json",
        b"accept": b"application/json, text/event-stream",
    }
    lines.extend(pair for pair in defaults.items() if pair[0] not in named)
    if b"authorization" not in named and b"x-api-key" not in named:
        lines.append((b"authorization", b"Bearer " + KEY.encode()))
    return lines


class Client:
    """Speaks MCP as it should be spoken, in one era. Handshake era: `connect` first (the single face needs none)."""

    def __init__(self, rig: Rig, path: str, modern: bool, key: str) -> None:
        self.rig = rig
        self.path = path
        self.modern = modern
        self.session: str | None = None
        self._key = key
        self._number = 0

    def headers(self, method: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What goes with a message of this method."""
        lines = [("authorization", f"Bearer {self._key}")]
        if self.session is not None:
            lines.append(("mcp-session-id", self.session))
        if not self.modern:
            return [*lines, ("mcp-protocol-version", HANDSHAKE)]
        lines += [("mcp-protocol-version", MODERN), ("mcp-method", method)]
        name = params.get("uri" if method == "resources/read" else "name")
        if method in ("tools/call", "prompts/get", "resources/read") and isinstance(name, str):
            lines.append(("mcp-name", encode_header(name)))
        return lines

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The params with what this era wants in `_meta`."""
        if not self.modern:
            return dict(params)
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        return {**params, "_meta": {**meta, **params.get("_meta", {})}}

    async def connect(self) -> Exchanged:
        """The initialize handshake."""
        params = {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "rig", "version": "1"}}
        reply = await self.request("initialize", params)
        self.session = reply.header("mcp-session-id")
        await self.notify("notifications/initialized", {})
        return reply

    async def request(self, method: str, params: Mapping[str, Any] | None = None, **members: Any) -> Exchanged:
        """One request with an id of its own; `members` join the message (and may replace its id)."""
        self._number += 1
        params = self.params(params or {})
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params, **members}
        return await self.send(message)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> Exchanged:
        """One notification."""
        return await self.send({"jsonrpc": "2.0", "method": method, "params": dict(params or {})})

    async def send(self, message: Mapping[str, Any]) -> Exchanged:
        """This message, as JSON text, with the headers that belong to it."""
        headers = self.headers(message.get("method", ""), message.get("params") or {})
        return await self.rig.post(self.path, json.dumps(message).encode(), *headers)


@asynccontextmanager
async def open_rig(
    *servers: ScriptedServer,
    rego: Sequence[str] | PolicyEngine = (ALLOW_ALL,),
    principals: Mapping[str, Principal] | None = None,
    budgets: Sequence[Budget] = (),
    limits: Limits | None = None,
    ledger: BudgetLedger | None = None,
    log: AuditLog | None = None,
    upstream: Callable[[ScriptedServer], Upstream] | None = None,
    origin: OriginPolicy | None = None,
    warm: bool = True,
    siblings: Siblings | None = None,
    processes: Collection[str] = (),
) -> AsyncIterator[Rig]:
    """A gateway before these servers. `upstream` wraps or replaces the port to a server; `warm`: catalogs are read.

    `siblings`: it is one of several workers; `processes`: the servers that count as processes.
    """
    seat = None if siblings is None else siblings.seat
    limits = limits or Limits()
    recording = RecordingEngine(engine_of(*rego) if isinstance(rego, Sequence) else rego)
    holder = SnapshotHolder(Snapshot("1", recording, BudgetIndex(tuple(budgets)).matching, substitute, limits))
    ledger = ledger or MemoryLedger()
    log = log or MemoryAuditLog()
    history = MemoryHistory()
    ends = Ends(log)
    journal = Journal(ledger, ends)
    ends.watch(journal)
    settler = Settler(journal, history, _mac_key)
    governor = Governor(holder, journal, ledger, history, settler, _mac_key)
    sealer = Sealer([b"k" * 32])
    rounds, tasks = Rounds(sealer, settler, seat), Tasks(settler)
    responder = Responder(settler, governor.law, rounds, tasks)
    exchanges: dict[str, Exchange] = {}
    for server in servers:
        port = server if upstream is None else upstream(server)
        catalog = Catalog(port)
        exchanges[server.name] = Exchange(port, catalog, Gate(catalog, governor, rounds), settler, responder, tasks)
    hub = Hub(exchanges, Sessions(sealer, seat), rounds, tasks, settler)
    holder.on_swap.append(lambda snapshot: _stop(hub, snapshot))
    faces: dict[str, Face] = {
        f"/servers/{name}/mcp": SingleFace(each, hub.sessions) for name, each in exchanges.items()
    }
    faces["/mcp"] = MergedFace(hub)
    identity = MemoryIdentity({KEY: PRINCIPAL} if principals is None else principals)
    endpoint = McpEndpoint(
        faces,
        hub.sessions,
        identity,
        origin or OriginPolicy("127.0.0.1"),
        bounds=Bounds(max_body=limits.max_body),
        challenge=lambda _: "Bearer",
        routing=None if siblings is None else Routing(siblings, hub.sessions, rounds, tasks, processes=processes),
        end=hub.end,
    )
    by_name = {server.name: server for server in servers}
    app = Asgi(endpoint)
    rig = Rig(app, endpoint, hub, journal, holder, recording, ledger, log, history, by_name, ends)
    journal.start()
    try:
        if warm:
            for exchange in exchanges.values():
                await exchange.catalog.refresh()
                assert exchange.catalog.ready, exchange.catalog.failure
            rig.forget()
        yield rig
    finally:
        await app.close()
        for exchange in exchanges.values():
            await exchange.upstream.close()
        await journal.close()


def _stop(hub: Hub, snapshot: Snapshot) -> None:
    hub.stop(snapshot.switches)


def _mac_key(tenant: str) -> bytes:
    return b"mac" + tenant.encode()


class LoopRig:
    """A rig on a loop of its own, driven from plain functions."""

    def __init__(self, rig: Rig, runner: asyncio.Runner) -> None:
        self.rig = rig
        self._runner = runner

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run to its end, within ten seconds."""
        return self._runner.run(_bounded(work))


async def _bounded(work: Coroutine[Any, Any, Result]) -> Result:
    async with asyncio.timeout(10):
        return await work


@contextmanager
def loop_rig(*servers: ScriptedServer, **options: Any) -> Iterator[LoopRig]:
    """`open_rig` for plain functions."""
    with asyncio.Runner() as runner:
        opening = open_rig(*servers, **options)
        rig = runner.run(opening.__aenter__())
        try:
            yield LoopRig(rig, runner)
        finally:
            runner.run(_closed(opening))


async def _closed(opening: AbstractAsyncContextManager[Rig]) -> None:
    await opening.__aexit__(None, None, None)
