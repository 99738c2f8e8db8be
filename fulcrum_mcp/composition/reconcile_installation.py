"""Reconciling an installation with several gateways: the spools of this machine, the stream, Postgres."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fulcrum_adapters.jetstream import Connection, JetStreamConfig, JetStreamView, Seal, tenant_of
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.installation import join
from fulcrum_adapters.postgres.upgrade import check
from fulcrum_adapters.spool import SpoolReader
from fulcrum_mcp.composition.database import postgres_config
from fulcrum_mcp.composition.event_processor import jetstream_config
from fulcrum_mcp.composition.reconcile import Told, counted
from fulcrum_mcp.composition.signing import nats_seal
from fulcrum_mcp.ports import ArchivedRecord, SpoolSource
from fulcrum_mcp.processor.archived import archived
from fulcrum_mcp.processor.reconcile import Put, Reconciliation, read_spools
from fulcrum_mcp.settings import Settings

__all__ = ["Installation", "installation"]


class Installation:
    """Where the trail of several gateways lies."""

    streamed = True

    def __init__(self, settings: Settings, database: Database, nats: JetStreamConfig, seal: Seal, told: Told) -> None:
        self._told = told
        self._nats = nats
        self._seal = seal
        self._archive = PostgresArchive(database)
        self._chains = PostgresChains(database)
        self._reader = PostgresAuditReader(database)
        self.source: SpoolSource = SpoolReader(settings.data / "spool", settings.data / "aside")

    def look(self) -> Reconciliation:
        """Ask everybody once, the store last. Raises `Unavailable`."""
        found = Reconciliation()
        self._told("reading the spools")
        read_spools(self.source, found)
        self._told("reading the stream")
        asyncio.run(self._take_stream(found))
        found.take_state(self._chains.load())
        found.take_store(counted(self._reader.lines(None), self._told))
        found.take_links(self._chains)
        return found

    async def _take_stream(self, found: Reconciliation) -> None:
        view = JetStreamView(connection := Connection(self._nats, "fulcrum-reconcile"), self._seal)
        connection.start()
        try:
            await connection.ready()
            async for seen in view.parcels():
                found.take_parcel(seen, tenant_of(seen.subject))
        finally:
            await view.close()

    @contextmanager
    def mending(self) -> Iterator[Put]:
        """Store beside the processors: a record that comes again is known."""
        yield self._put

    def _put(self, lines: Sequence[bytes], inputs: Sequence[tuple[str, bytes]]) -> None:
        records = [record for record in map(archived, lines) if isinstance(record, ArchivedRecord)]
        known = {record.id: record for record in records}
        self._archive.store(
            records,
            [(name, known[name].tenant, known[name].time, text) for name, text in inputs if name in known],
        )

    def close(self) -> None:
        """Idempotent."""
        self._reader.close()


@contextmanager
def installation(settings: Settings, told: Told) -> Iterator[Installation]:
    """Raises `Invalid`, `Unavailable`."""
    config, nats, seal = postgres_config(settings), jetstream_config(settings), nats_seal(settings)
    check(config)
    database = Database(config)
    try:
        join(database, seal.check)
        parts = Installation(settings, database, nats, seal, told)
        try:
            yield parts
        finally:
            parts.close()
    finally:
        database.close()
