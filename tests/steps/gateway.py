"""The whole gateway of an installation in this process: Valkey is real and behind the proxy, the rest is at hand.

Everything that speaks to Redis is composed by the product; Postgres' tables are SQLite's, its registry of writers is
read from the spools, and NATS carries nothing.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final, Self, cast

from asgi_driver import Asgi, Exchanged, Stream
from governed_processes import VERSION, tool_call
from steps.books import INSTALLATION
from steps.pulse import Pulse
from steps.store import SpoolStore

from fulcrum_adapters.jetstream import Connection, Seal
from fulcrum_adapters.redis.cache import CachedKeys
from fulcrum_adapters.signing import GivenKeys
from fulcrum_mcp.composition.backing import Backing, Companion
from fulcrum_mcp.composition.control import admin_key
from fulcrum_mcp.composition.event_processor import jetstream_config
from fulcrum_mcp.composition.gateway import DataPlane
from fulcrum_mcp.composition.installation import Installation
from fulcrum_mcp.composition.repositories import sqlite_repositories
from fulcrum_mcp.composition.server import Server, open_server
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.keeper import LedgerKeeper
from fulcrum_mcp.gateway.records import DECIDED
from fulcrum_mcp.ports import AuditLog
from fulcrum_mcp.settings import Settings

__all__ = ["ADMIN", "Answer", "FailingLog", "Gateway", "Stepped", "until"]

ADMIN: Final = "flcrm_sk_stepping_" + "0123456789abcdef" * 3
STORED: Final = 10.0
"""Seconds until a store must have what was written. A gateway that ends before that is waited for by a rebuild."""
_REFUSALS: Final = ("unavailable", "budget_exceeded", "rate_limited", "replayed", "tainted", "broke")


@dataclass(frozen=True)
class Answer:
    """What became of one call: `ok`, `asked` (for input), `error`, or the code of its denial."""

    tool: str
    text: str
    kind: str
    seconds: float
    state: str = ""

    @property
    def refused(self) -> bool:
        """It must not have gone anywhere."""
        return self.kind in _REFUSALS


class FailingLog:
    """`AuditLog` that refuses to write a decision, once, when told to."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.writer = log.writer
        self.fails = False

    def write(self, block: Any) -> None:
        if self.fails and any(draft.type == DECIDED for draft in block.drafts):
            self.fails = False
            raise Unavailable("the disk is full, for once")
        self._log.write(block)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Stepped(Installation):
    """An `Installation` whose store is `SpoolStore` and SQLite."""

    def __init__(self, settings: Settings, store: SpoolStore) -> None:
        absent: Any = SimpleNamespace(close=lambda: None)
        unconnected = Connection(jetstream_config(settings), "fulcrum-steps")
        keys = GivenKeys(None, None, settings.data / "keys")
        super().__init__(settings, absent, unconnected, keys, Seal(b"s" * 32), INSTALLATION)
        self._spools = store
        self._tables = sqlite_repositories(settings.data)
        self.log = FailingLog(self._log)

    def backing(self) -> Backing:
        """With what is at hand in Postgres' and NATS' place."""
        usual = super().backing()
        assert usual.stores is not None
        keys = CachedKeys(self._tables.keys, self._redis.server, self._revision, b"k" * 32)
        return replace(
            usual,
            repositories=replace(self._tables, keys=keys),
            stores=replace(usual.stores, log=cast("AuditLog", self.log)),
            feed=None,
            feed_fault=None,
        )

    def _budgets(self) -> Sequence[Budget]:
        return (*self._settings.budgets, *self._tables.config.read().budgets)

    def _companions(self, plane: DataPlane) -> Sequence[Companion]:
        self._plane = plane
        self._finish_own(plane.journal)
        self.keeper = LedgerKeeper(self._ledger, self._fence, self._spools, plane.journal, self._budgets)
        return [_Keeping(self.keeper, self._spools)]


class _Keeping:
    """The keeper's lifetime."""

    def __init__(self, keeper: LedgerKeeper, store: SpoolStore) -> None:
        self._keeper = keeper
        self._store = store

    def start(self) -> None:
        self._keeper.start()

    async def close(self) -> None:
        await self._keeper.close(retire=await until(lambda: self._store.complete, STORED))


class Gateway:
    """One process's worth. `answers` are all that clients got."""

    def __init__(self, installation: Stepped, server: Server, numbers: "itertools.count[int]", pulse: Pulse) -> None:
        self.installation = installation
        self.server = server
        self.answers: list[Answer] = []
        self._app = Asgi(server)
        self._numbers = numbers
        self._pulse = pulse

    @classmethod
    async def open(cls, settings: Settings, store: SpoolStore, numbers: "itertools.count[int]", pulse: Pulse) -> Self:
        installation = Stepped(settings, store)
        server = await open_server(settings, backing=installation.backing(), planes="both")
        gateway = cls(installation, server, numbers, pulse)
        await asyncio.to_thread(admin_key, server.control, settings)
        for companion in server.companions:
            companion.start()
        for exchange in server.plane.hub.exchanges.values():
            await exchange.catalog.refresh()
        return gateway

    @property
    def journal(self) -> Any:
        return self.server.plane.journal

    @property
    def serves(self) -> bool:
        """The ledger serves, as the keeper sees it."""
        return self.installation.keeper.waiting is None

    @property
    def waiting(self) -> list[str]:
        """What waits in the journal."""
        names = ("_settlements", "_ended", "_owed", "_asking", "_writing")
        return [name for name in names if getattr(self.journal, name)]

    async def settled(self, seconds: float = 1.0) -> list[str]:
        """Wait until nothing waits in the journal; what still does."""
        began = self._pulse.now
        while self.waiting and self._pulse.now - began < seconds:  # noqa: ASYNC110 - nobody else waits for it
            await asyncio.sleep(0.005)
        return self.waiting

    def begin(self, tool: str, *, envelope: str = "", **params: Any) -> tuple[Stream, str]:
        """A call that goes on beside the test, and its text."""
        number = next(self._numbers)
        text = params.pop("text", f"text-{number}")
        document = tool_call(number, tool, text)
        document["params"] |= params
        headers = [
            (b"mcp-protocol-version", VERSION.encode()),
            (b"mcp-method", b"tools/call"),
            (b"mcp-name", tool.encode()),
        ]
        if envelope:
            headers.append((b"x-fulcrum-envelope", envelope.encode()))
        lines = self._lines(headers)
        return self._app.open("POST", "/servers/marks/mcp", lines, json.dumps(document).encode()), text

    async def call(self, tool: str, *, envelope: str = "", **params: Any) -> Answer:
        """One call and its answer."""
        began = self._pulse.now
        stream, text = self.begin(tool, envelope=envelope, **params)
        return self.note(tool, text, await stream.end(), self._pulse.now - began)

    def note(self, tool: str, text: str, reply: Exchanged, seconds: float) -> Answer:
        """What an answer says."""
        assert reply.status == 200, reply.body
        result = reply.result
        kind, state = "ok", ""
        if result.get("isError"):
            reasons = result.get("_meta", {}).get("dev.fulcrum/decision", {}).get("reasons")
            kind = reasons[0]["code"] if reasons else "error"
        elif result["resultType"] == "input_required":
            kind, state = "asked", result["requestState"]
        self.answers.append(Answer(tool, text, kind, seconds, state))
        return self.answers[-1]

    async def make(self, path: str, body: object) -> dict[str, Any]:
        """Have the control plane make something; it may have to be told again while the journal is held up."""
        made = await self.ask("POST", path, body)
        for _ in range(4):
            if made.status == 503:
                made = await self.ask("POST", path, body)
        assert made.status == 201, made.body
        document: dict[str, Any] = json.loads(made.body)
        return document

    async def ask(self, verb: str, path: str, body: object = None) -> Exchanged:
        """One question to the control plane, as the operator."""
        text = b"" if body is None else json.dumps(body).encode()
        return await self._app.request(verb, path, self._lines([]), text)

    @staticmethod
    def _lines(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [
            (b"host", b"127.0.0.1:8080"),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
            (b"x-api-key", ADMIN.encode()),
            *headers,
        ]

    async def recover(self) -> None:
        """Look for dead processes now."""
        with contextlib.suppress(Unavailable):
            await asyncio.to_thread(self.server.plane.stores.recover)

    async def close(self) -> None:
        """As on SIGTERM."""
        await self.server.close()
        await self._app.close()


async def until(condition: Any, seconds: float) -> bool:
    """Wait for something, bounded; whether it came."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - it comes about on other threads
                await asyncio.sleep(0.005)
            return True
    return False
