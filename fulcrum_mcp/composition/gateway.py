"""The data plane of one process, put together and torn down: stores, journal, snapshot, upstreams, hub."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from fulcrum_adapters.upstream.config import HttpUpstreamConfig
from fulcrum_adapters.upstream.http import HttpUpstream
from fulcrum_adapters.upstream.stdio import StdioConfig, StdioUpstream
from fulcrum_mcp.composition.embedded import open_embedded
from fulcrum_mcp.composition.ending import Ending, all_of
from fulcrum_mcp.composition.folder import open_folder, write_once
from fulcrum_mcp.composition.following import Follower
from fulcrum_mcp.composition.snapshots import OBSERVE, Snapshots
from fulcrum_mcp.composition.stores import Stores
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.exchange import Exchange
from fulcrum_mcp.gateway.gate import Gate
from fulcrum_mcp.gateway.govern import Governor
from fulcrum_mcp.gateway.hub import Hub
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.respond import Responder
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.snapshot import Snapshot, SnapshotHolder
from fulcrum_mcp.gateway.tasks import Tasks
from fulcrum_mcp.ports import ConfigFeed, ConfigRepository, Upstream
from fulcrum_mcp.settings import ServerSettings, Settings

__all__ = ["DataPlane", "build_upstream", "open_data_plane", "state_keys"]

_log = structlog.get_logger("fulcrum.gateway")

_SWEEP: Final = 5.0


@dataclass(slots=True)
class DataPlane:
    """One process's data plane. `close` ends it, in order."""

    hub: Hub
    holder: SnapshotHolder
    snapshots: Snapshots
    journal: Journal
    stores: Stores
    upstreams: Sequence[Upstream]
    follower: Follower
    """Keeps the snapshot current."""
    _task: asyncio.Task[None] | None = None
    _told: str | None = None
    """The fault that was said last."""

    def start(self) -> None:
        """Begin to follow changes, and to settle what never came back."""
        self.holder.on_swap.append(self._swapped)
        self.follower.start()
        self._task = asyncio.get_running_loop().create_task(self._sweep())

    def _swapped(self, snapshot: Snapshot) -> None:
        stopped = self.hub.stop(snapshot.switches)
        if stopped:
            _log.warning("calls in flight stopped", calls=stopped)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                self.hub.sweep(time.monotonic())
                await asyncio.to_thread(self.stores.recover)
                self._told = None
            except Exception as fault:  # noqa: BLE001 - sweeping must not end while the gateway runs
                if self._told != str(fault):
                    self._told = str(fault)
                    known = isinstance(fault, FulcrumError | OSError)
                    _log.warning("what was left open not settled", reason=str(fault), exc_info=not known)

    async def close(self, ending: Ending | None = None) -> None:
        """Stop following, end the upstreams, commit what is queued; raises what fails, unless an `ending` is given."""
        stages = ending or Ending()
        await stages.stage("following", self._follow_no_more)
        await stages.stage("upstreams", lambda: all_of(upstream.close() for upstream in self.upstreams))
        await stages.stage("journal", self.journal.close)
        await stages.stage("stores", lambda: asyncio.to_thread(self.stores.close))
        if ending is None:
            stages.finish()

    async def _follow_no_more(self) -> None:
        await self.follower.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def build_upstream(server: ServerSettings, settings: Settings) -> Upstream:
    """The adapter for one server of the configuration. Raises `Invalid`."""
    if server.command is not None:
        config = StdioConfig(
            command=server.command,
            environment={name: value.get_secret_value() for name, value in server.env.items()},
            directory=None if server.cwd is None else str(server.cwd),
            max_processes=server.max_processes,
            idle_timeout=server.idle_timeout,
            line_limit=settings.limits.max_response,
        )
        return StdioUpstream(server.name, config)
    if server.url is None:
        raise Invalid(f"server {server.name!r}: neither a command nor a url; give one of them")
    return HttpUpstream(
        HttpUpstreamConfig(
            name=server.name,
            url=server.url,
            headers={name: value.get_secret_value() for name, value in server.headers.items()},
            client=server.client,
            head_seconds=server.timeout,
            max_body=settings.limits.max_response,
            max_event=settings.limits.max_response,
        )
    )


def state_keys(settings: Settings, folder: Path) -> list[bytes]:
    """The keys that seal sessions and request states: the operator's, else one made in the data folder."""
    given = [key.get_secret_value().encode() for key in settings.state_keys]
    if given:
        return given
    path = folder / "keys" / "state.key"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_once(path, secrets.token_hex(32))
    return [path.read_text().strip().encode()]


async def open_data_plane(
    settings: Settings,
    config: ConfigRepository,
    stores: Stores | None = None,
    seat: Seat | None = None,
    *,
    feed: ConfigFeed | None = None,
    feed_fault: Callable[[], str | None] | None = None,
    otherwise: str | None = OBSERVE,
) -> DataPlane:
    """Build everything that governs calls, on the running event loop; on the data folder's stores if none are given.

    `feed` and `feed_fault`: see `Follower`; `otherwise`: see `Snapshots`. Raises `Invalid` (policies, configuration,
    keys) and `Unavailable` (a store cannot be opened).
    """
    folder = open_folder(settings.data)
    snapshots = Snapshots(settings, config, otherwise)
    holder = snapshots.first()
    stores = stores or open_embedded(settings)
    journal = Journal(stores.ledger, stores.log)
    settler = Settler(journal, stores.history, stores.keys.mac_key)
    governor = Governor(holder, journal, stores.ledger, stores.history, settler, stores.keys.mac_key)
    sealer = Sealer(state_keys(settings, folder))
    rounds = Rounds(sealer, settler, seat)
    tasks = Tasks(settler)
    responder = Responder(settler, governor.law, rounds, tasks)
    exchanges: dict[str, Exchange] = {}
    upstreams: list[Upstream] = []
    for server in settings.servers:
        upstream = build_upstream(server, settings)
        upstreams.append(upstream)
        catalog = Catalog(upstream)
        exchanges[server.name] = Exchange(upstream, catalog, Gate(catalog, governor, rounds), settler, responder, tasks)
    hub = Hub(exchanges, Sessions(sealer, seat), rounds, tasks, settler)
    journal.start()
    follower = Follower(snapshots, holder, feed=feed, feed_fault=feed_fault)
    plane = DataPlane(hub, holder, snapshots, journal, stores, upstreams, follower)
    plane.start()
    return plane
