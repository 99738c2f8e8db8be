"""The parts of an installation with several gateways: Postgres, Redis or Valkey, and NATS, put together for one server.

Redis and NATS that are down at the start are waited for in the background: until then what needs them is denied, or
waits in the spool. Postgres must answer: without it nobody knows what to enforce.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from fulcrum_adapters.jetstream import (
    Connection,
    JetStreamAuditStream,
    JetStreamConfigFeed,
    JetStreamLog,
    Seal,
    check_streams,
    ensure_streams,
)
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.budgets import PostgresBudgets
from fulcrum_adapters.postgres.configuration import PostgresConfiguration
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.installation import join
from fulcrum_adapters.postgres.keys import PostgresKeys
from fulcrum_adapters.postgres.policies import PostgresPolicies
from fulcrum_adapters.postgres.switches import PostgresSwitches
from fulcrum_adapters.postgres.takeover import PostgresTakeover
from fulcrum_adapters.postgres.writers import PostgresWriters
from fulcrum_adapters.redis.cache import CachedKeys
from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.history import RedisHistory
from fulcrum_adapters.redis.ledger import RedisLedger
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_adapters.signing import GivenKeys
from fulcrum_adapters.spool import FileLeadership, Spool, SpoolConfig, SpoolReader
from fulcrum_mcp.api.health import Part
from fulcrum_mcp.composition.backing import Backing, Companion
from fulcrum_mcp.composition.database import open_database
from fulcrum_mcp.composition.embedded import finish_dead
from fulcrum_mcp.composition.event_processor import jetstream_config
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.gateway import DataPlane
from fulcrum_mcp.composition.repositories import Repositories
from fulcrum_mcp.composition.signing import audit_keys, check_signing_key, nats_seal
from fulcrum_mcp.composition.stores import Stores
from fulcrum_mcp.core.budget import Budget, Commit
from fulcrum_mcp.errors import FulcrumError, Invalid, Unavailable
from fulcrum_mcp.gateway.corrections import never_sent_draft
from fulcrum_mcp.gateway.courier import Courier
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.gateway.keeper import FencedLedger, LedgerKeeper
from fulcrum_mcp.gateway.lease import Hearing, Lease
from fulcrum_mcp.gateway.metrics import gauge
from fulcrum_mcp.gateway.records import outcome_unknown_draft
from fulcrum_mcp.gateway.undertaker import Undertaker
from fulcrum_mcp.ports import AuditLog, Metric, OpenCall, Point
from fulcrum_mcp.settings import Settings

__all__ = ["Installation", "open_installation"]

_log = structlog.get_logger("fulcrum.installation")
_SKEW: Final = 60.0
"""Seconds by which the clocks of gateways and of Redis may differ."""
_RETRY: Final = 1.0
_KEY_CACHE: Final = "\0keys in redis"
"""In a tenant's place, which can never be named so, with the installation's id: what API keys are cached under."""


class Installation:
    """Opened parts of one server process; made on its event loop."""

    def __init__(
        self, settings: Settings, database: Database, connection: Connection, keys: GivenKeys, seal: Seal, name: str
    ) -> None:
        """`name`: the id of the installation that the database belongs to."""
        self._settings = settings
        self._folder = open_folder(settings.data)
        self._database = database
        self._connection = connection
        assert settings.redis is not None
        given = settings.redis
        config = RedisConfig(
            given.url.get_secret_value(),
            prefix=given.prefix,
            timeout=given.timeout,
            skew=_SKEW,
            ca=given.ca,
            cert=given.cert,
            key=given.key,
        )
        self._redis = RedisStore(config, name)
        self._ledger = RedisLedger(self._redis)
        self._keys = keys
        self._key_cache = keys.mac_key(f"{_KEY_CACHE} {name}")
        self._seal = seal
        self._stream: JetStreamAuditStream | None = None
        self._spool_config = _spool_config(settings)
        self._lease = Lease() if self._spool_config is None else None
        self._hearing = None if self._spool_config is None else Hearing(self._stream_fault)
        self._fence = FencedLedger(self._ledger, lambda: None if self._hearing is None else self._hearing.fault())
        self._log = self._open_log()
        self._plane: DataPlane | None = None
        self._keeper: LedgerKeeper | None = None
        self._courier: Courier | None = None
        self._undertaker: Undertaker | None = None
        self._streams: str | None = "not asked yet"
        """Why the streams are not known to be as they should."""

    def _open_log(self) -> AuditLog:
        if self._spool_config is None:
            assert self._lease is not None
            return JetStreamLog(self._connection.config, self._seal, never_sent_draft, barred=self._lease.fault)
        return Spool.open(self._folder / "spool", self._spool_config)

    def backing(self) -> Backing:
        """For `open_server`."""
        database = self._database
        return Backing(
            repositories=Repositories(
                keys=CachedKeys(PostgresKeys(database), self._redis.server, self._revision, self._key_cache),
                budgets=PostgresBudgets(database),
                switches=PostgresSwitches(database),
                policies=PostgresPolicies(database),
                config=PostgresConfiguration(database),
                close=database.close,
            ),
            stores=Stores(
                ledger=self._fence,
                history=RedisHistory(self._redis),
                log=self._log,
                keys=self._keys,
                recovered=len(self._open_calls),
                recover=self._recover,
                close=self._redis.close,
            ),
            usage=self._ledger.usage,
            open_reader=partial(PostgresAuditReader, database),
            drain=lambda: True,
            companions=self._companions,
            feed=JetStreamConfigFeed(self._connection),
            feed_fault=lambda: None if self._connection.connected else "NATS is not connected",
            otherwise=None,
            parts=self.parts,
            metrics=self.metrics,
        )

    def _revision(self) -> int:
        return -1 if self._plane is None else self._plane.snapshots.revision

    def _recover(self) -> int:
        """Finish what dead processes of this host left; again later while the ledger does not serve."""
        if self._spool_config is None:
            return 0
        return finish_dead(self._folder / "spool", None, self._spool_config, self._ledger)

    @property
    def _open_calls(self) -> Sequence[OpenCall]:
        return self._log.open_calls if isinstance(self._log, Spool) else ()

    def _finish_own(self, journal: Journal) -> None:
        """Finish what the dead process left whose spool this one goes on with, in order with what comes now."""
        at = now_ns()
        for item in self._open_calls:
            decided = msgspec.json.decode(item.data)
            build = partial(outcome_unknown_draft, item.tenant, decided)
            journal.settle(Settlement(Commit(item.call, item.leg, None, at), build))

    def _budgets(self) -> Sequence[Budget]:
        return (*self._settings.budgets, *PostgresConfiguration(self._database).read().budgets)

    def _companions(self, plane: DataPlane) -> Sequence[Companion]:
        self._plane = plane
        self._finish_own(plane.journal)
        registry = PostgresWriters(self._database)
        self._keeper = LedgerKeeper(
            self._ledger,
            self._fence,
            registry,
            plane.journal,
            self._budgets,
            self._lease,
            _end_process,
            self._settings.budgets,
            self._hearing,
        )
        self._stream = stream = JetStreamAuditStream(self._connection, self._seal)
        if self._spool_config is None:
            self._undertaker = Undertaker(PostgresTakeover(self._database), plane.journal, stream.oldest)
        else:
            source = SpoolReader(self._folder / "spool", self._folder / "aside")
            self._courier = Courier(source, stream, FileLeadership(self._folder / "courier.lock"))
        return [_Parts(self)]

    def check_books(self) -> None:
        """Raises `Invalid` where another installation has its books; a server that does not answer is asked later."""
        with contextlib.suppress(Unavailable):
            why = self._redis.foreign()
            if why is not None:
                raise Invalid(why)

    async def start(self) -> None:
        """See the streams made and checked, whenever NATS answers; what differs is said once."""
        while self._streams is not None:
            try:
                await self.check(stream_mode=False)
            except Unavailable as fault:
                self._streams = str(fault)
                await asyncio.sleep(_RETRY)
            except FulcrumError as fault:
                self._streams = str(fault)
                _log.error("streams are not as they should be", reason=str(fault))
                return

    async def check(self, *, stream_mode: bool) -> None:
        """Raises `Unavailable`, `Invalid`."""
        await self._connection.ready()
        checked = await ensure_streams(self._connection)
        for warning in await check_streams(self._connection, checked, stream_mode=stream_mode):
            _log.warning("stream differs", what=warning)
        self._streams = None

    def begin(self) -> None:
        """Start what works beside the data plane."""
        assert self._keeper is not None
        self._keeper.start()
        if self._courier is not None:
            self._courier.start()
        if self._undertaker is not None:
            self._undertaker.start()

    async def end(self) -> None:
        """Carry what is left for a moment; then say to the others whether anything still is."""
        if self._undertaker is not None:
            await self._undertaker.close()
        # What the stream has is not in the store yet: without a courier nobody knows, and a rebuild must wait.
        stored = self._courier is not None and await self._courier.close()
        if self._keeper is not None:
            await self._keeper.close(retire=stored)

    async def disconnect(self) -> None:
        """Leave NATS. Idempotent."""
        await self._connection.close()

    def check_ended(self) -> None:
        """After the server has ended: `Unavailable` if it did so because another gateway had taken over from it."""
        if self._lease is not None and self._lease.ended:
            raise Unavailable(
                "this gateway was not heard for a minute (stopped, or cut off from Postgres); another one has finished "
                "its calls, so it has ended; start it again"
            )

    def parts(self) -> Mapping[str, Part]:
        """What readiness tells: without the ledger budgeted calls are denied, without NATS the spool fills."""
        waiting = None if self._keeper is None else self._keeper.waiting
        if waiting is None and self._hearing is not None:
            waiting = self._hearing.fault()
        failing = None if self._courier is None else self._courier.failing
        stream = failing or self._streams or self._stream_fault() or ""
        return {
            "ledger": Part(waiting is None, waiting or ""),
            "stream": Part(ready=self._spool_config is not None or not stream, detail=stream),
        }

    def _stream_fault(self) -> str | None:
        """Why no records are carried at the moment."""
        failing = None if self._courier is None else self._courier.failing
        return failing or (None if self._connection.connected else "not connected")

    def metrics(self) -> Sequence[Metric]:
        """Figures of the parts."""
        found = [
            gauge(
                "fulcrum_ledger_rebuilding",
                "1 while the ledger does not serve.",
                float(self._keeper is None or self._keeper.waiting is not None),
            ),
            Metric(
                "fulcrum_confirmations_ignored",
                "counter",
                "Confirmations over NATS that no processor of this installation has sealed.",
                [Point({}, 0 if self._stream is None else self._stream.ignored)],
            ),
        ]
        if self._courier is not None:
            lag = self._courier.lag()
            found.append(gauge("fulcrum_spool_unconfirmed_records", "Published and not stored yet.", lag.records))
        if isinstance(self._log, Spool):
            found.append(gauge("fulcrum_spool_bytes", "Size of this writer's spool.", self._log.size()))
        return found


class _Parts:
    """The parts' lifetime, as a companion."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._checking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._checking = asyncio.get_running_loop().create_task(self._installation.start())
        self._installation.begin()

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checking
        await self._installation.end()
        await self._installation.disconnect()


def _end_process() -> None:
    """As if told to end from outside."""
    os.kill(os.getpid(), signal.SIGTERM)


async def open_installation(settings: Settings, *, signs: bool = True) -> Installation:
    """Open what must be open before a server can start. `signs`: it gives exports away.

    Raises `Invalid` and `Unavailable`.
    """
    keys, seal = audit_keys(settings, signs=signs), nats_seal(settings)
    database = await asyncio.to_thread(open_database, settings)
    connection = Connection(jetstream_config(settings), "fulcrum-server")
    connection.start()
    try:
        name = await asyncio.to_thread(join, database, seal.check)
        if signs:
            await asyncio.to_thread(check_signing_key, keys, database)
        installation = Installation(settings, database, connection, keys, seal, name)
        await asyncio.to_thread(installation.check_books)
        if settings.audit.durability == "stream":
            await installation.check(stream_mode=True)
    except BaseException:
        await connection.close()
        await asyncio.to_thread(database.close)
        raise
    return installation


def _spool_config(settings: Settings) -> SpoolConfig | None:
    """None: there is no spool, records go to the stream directly."""
    audit = settings.audit
    return None if audit.durability == "stream" else SpoolConfig(audit.durability, max_bytes=audit.max_spool)
