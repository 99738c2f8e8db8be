"""The event-processor put together: Postgres, NATS and the signing key, with an address that says how it is.

It listens first, then waits for what it needs as long as that takes: a processor has nothing else to do, and nothing is
lost meanwhile.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from fulcrum_adapters.jetstream import (
    Connection,
    JetStreamAuditFeed,
    JetStreamConfig,
    check_streams,
    ensure_streams,
    tenant_of,
)
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.installation import join
from fulcrum_adapters.postgres.leader import PostgresLeadership
from fulcrum_adapters.postgres.upkeep import keep_up
from fulcrum_mcp.api.health import Part, health_routes
from fulcrum_mcp.api.metrics import metrics_route
from fulcrum_mcp.composition.collector import calm_collector
from fulcrum_mcp.composition.database import open_database, postgres_config
from fulcrum_mcp.composition.faces import Faces
from fulcrum_mcp.composition.figures import Figures
from fulcrum_mcp.composition.signing import audit_keys, check_signing_key, nats_seal
from fulcrum_mcp.errors import FulcrumError, Invalid, Unavailable
from fulcrum_mcp.ports import Metric, Point
from fulcrum_mcp.processor.metrics import processor_metrics
from fulcrum_mcp.processor.patience import Patience, waited
from fulcrum_mcp.processor.service import EventProcessor, EventProcessorConfig
from fulcrum_mcp.settings import Bind, Settings

__all__ = ["ProcessorServer", "jetstream_config"]

_log = structlog.get_logger("fulcrum.processor")

_LONGEST = 5.0
"""Seconds between two tries to begin."""


def jetstream_config(settings: Settings) -> JetStreamConfig:
    """Raises `Invalid` where the settings name no server."""
    given = settings.nats
    if given is None:
        raise Invalid("no NATS server is configured; set FULCRUM_NATS_URL, or url in [nats] of fulcrum.toml.")
    return JetStreamConfig(
        given.url.get_secret_value(),
        given.credentials,
        replicas=given.replicas,
        timeout=given.timeout,
        max_bytes=given.max_bytes,
        sync_always=given.sync_always,
        ca=given.ca,
        cert=given.cert,
        key=given.key,
    )


def _keep_up(database: Database) -> None:
    made, dropped = keep_up(database)
    if made or dropped:
        _log.info("metrics.partitions", made=made, dropped=dropped)


@dataclass(slots=True)
class _Opened:
    database: Database
    connection: Connection
    feed: JetStreamAuditFeed


class ProcessorServer:
    """`run` until SIGINT or SIGTERM. Raises `Invalid` and `Unavailable`, each with place and remedy."""

    def __init__(self, settings: Settings, bind: Bind) -> None:
        self.settings = settings
        self._bind = bind
        self._postgres = postgres_config(settings)
        self._nats = jetstream_config(settings)
        self._keys = audit_keys(settings)
        self._seal = nats_seal(settings)
        if settings.audit_mac_key is None:
            said = "FULCRUM_AUDIT_MAC_KEY is not set: it believes who has the key in this folder, servers have another"
            _log.warning("nats.key.local", folder=str(settings.data / "keys"), reason=said)
        self._stopping = asyncio.Event()
        self._waits: dict[str, str] = {"postgres": "not opened yet", "nats": "not opened yet"}
        self.processor: EventProcessor | None = None
        self.address = ""
        """Where it says how it is: `host:port`."""

    async def run(self, ready: Callable[["ProcessorServer"], None]) -> None:
        """`ready` is called once it listens."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._stop, task)
        async with Faces() as faces:
            routes = [*health_routes(self.parts)]
            self.address = await faces.serve(self._bind, routes)
            if self.settings.telemetry.metrics is not None:
                await faces.serve(self.settings.telemetry.metrics, [metrics_route(Figures(self.metrics, None).read)])
            ready(self)
            await self._work()

    def _stop(self, task: "asyncio.Task[Any]") -> None:
        if self._stopping.is_set():  # asked twice: whatever is not acknowledged comes again
            task.cancel()
        self._stopping.set()
        if self.processor is not None:
            self.processor.stop()

    async def _work(self) -> None:
        opened = await self._open()
        if opened is None:
            return
        # Records come and go by the hundred and hold no cycles: looking through them costs a quarter of the time.
        calm_collector(100_000)
        try:
            self.processor = EventProcessor(
                opened.feed,
                PostgresArchive(opened.database),
                PostgresChains(opened.database),
                PostgresLeadership(self._postgres),
                self._keys,
                tenant_of,
                maintain=lambda: _keep_up(opened.database),
                config=EventProcessorConfig(inputs_days=self.settings.audit.inputs_days),
            )
            if self._stopping.is_set():
                self.processor.stop()
            await self.processor.run()
        finally:
            await opened.feed.close()
            await asyncio.to_thread(opened.database.close)

    async def _open(self) -> _Opened | None:
        """Wait for Postgres, then for NATS; None when it is time to stop before."""
        database = await self._until("postgres", lambda: asyncio.to_thread(self._database))
        if database is None:
            return None
        connection = Connection(self._nats, "fulcrum-processor")
        feed = JetStreamAuditFeed(connection, self._seal)
        connection.start()
        warnings = await self._until("nats", lambda: self._prepare(connection, feed))
        if warnings is None:
            await feed.close()
            await asyncio.to_thread(database.close)
            return None
        for warning in warnings:
            _log.warning("audit.stream.differs", what=warning)
        return _Opened(database, connection, feed)

    def _database(self) -> Database:
        """Of an installation that this process belongs to, and whose trail it may sign."""
        database = open_database(self.settings)
        try:
            join(database, self._seal.check)
            check_signing_key(self._keys, database)
        except FulcrumError:
            database.close()
            raise
        return database

    @staticmethod
    async def _prepare(connection: Connection, feed: JetStreamAuditFeed) -> Sequence[str]:
        await connection.ready()
        checked = await ensure_streams(connection)
        await feed.prepare()
        return await check_streams(connection, checked, stream_mode=False)

    async def _until(self, part: str, attempt: Callable[[], Any]) -> Any:
        patience = Patience(_LONGEST)
        while not self._stopping.is_set():
            try:
                found = await attempt()
            except Unavailable as exc:
                self._waits[part] = patience.told(exc, "audit.processor.waits", self._waits[part])
                await waited(self._stopping, patience.next())
            else:
                self._waits.pop(part)
                return found
        return None

    def parts(self) -> Mapping[str, Part]:
        """What it needs, and whether that works."""
        faults: Mapping[str, str] = {} if self.processor is None else self.processor.figures().faults
        told = {"postgres": faults.get("archive") or faults.get("checks"), "nats": faults.get("stream")} | self._waits
        return {name: Part(why is None, why or "") for name, why in told.items()}

    def metrics(self) -> Sequence[Metric]:
        """Everything that it counts."""
        found = [] if self.processor is None else list(processor_metrics(self.processor.figures()))
        parts = [Point({"part": name}, float(part.ready)) for name, part in self.parts().items()]
        return [*found, Metric("fulcrum_ready", "gauge", "1 where /readyz says that a part works.", parts)]
