"""The event-processor of an installation with several gateways: it stores beside others, and leads if nobody does."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from fulcrum_mcp.ports import Archive, AuditFeed, Chains, Leadership, Signer, StreamLag
from fulcrum_mcp.processor.leading import Leader, LeaderConfig
from fulcrum_mcp.processor.patience import Patience, waited
from fulcrum_mcp.processor.storing import Storer, StorerConfig

__all__ = ["EventProcessor", "EventProcessorConfig", "Figures"]

_log = structlog.get_logger("fulcrum.processor")
_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class EventProcessorConfig:
    """Of all its parts."""

    storer: StorerConfig = field(default_factory=StorerConfig)
    leader: LeaderConfig = field(default_factory=LeaderConfig)
    inputs_days: float = 30.0
    lag_every: float = 2.0
    """Seconds between two questions how far behind the processors are."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one processor knows at the moment; counts are since its start."""

    stored: int
    """Records."""
    dead_letters: int
    messages: int | None
    """In the stream, not yet delivered; None: not known."""
    unacknowledged: int | None
    lag_seconds: float
    """Age of the oldest record that is not stored, at most."""
    leader: bool
    broken: Mapping[str, str]
    """chain -> why; the leader knows."""
    gaps: Mapping[str, tuple[int, float]]
    """chain -> (the seq that it waits for, seconds); the leader knows."""
    unsigned: int
    checkpoints: int
    last_checkpoint: float | None
    """Unix time of the last one that was signed here."""
    faults: Mapping[str, str]
    """`stream`, `archive`, `checks`: what does not work, and why."""


class EventProcessor:
    """`run` until `stop` is called. `maintain` is called by the leader, on a thread, now and then."""

    def __init__(
        self,
        feed: AuditFeed,
        archive: Archive,
        chains: Chains,
        leadership: Leadership,
        signer: Signer,
        tenant_of: Callable[[str], str | None],
        *,
        maintain: Callable[[], None] | None = None,
        config: EventProcessorConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config or EventProcessorConfig()
        self._feed = feed
        self._archive = archive
        self._maintain = maintain
        self._clock = clock
        self._empty_at = clock() // 1000
        """When nothing waited in the stream, us: what waits now is younger."""
        self._stopping = asyncio.Event()
        self._lag: StreamLag | None = None
        self._lag_fault: str | None = None
        self.storer = Storer(feed, archive, tenant_of, self._config.storer, clock)
        self.leader = Leader(chains, leadership, signer, feed, self._upkeep, self._config.leader, clock)

    async def run(self) -> None:
        """Work; returns after `stop`, with what was fetched stored or given back, and the leadership free."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store_then_stop_leading(leading := asyncio.Event()))
            tasks.create_task(self.leader.run(leading))
            tasks.create_task(self._watch_lag())

    async def _store_then_stop_leading(self, leading: asyncio.Event) -> None:
        await self.storer.run(self._stopping)
        leading.set()  # what was stored last is still checked and signed

    def stop(self) -> None:
        """Begin to end. Idempotent."""
        self._stopping.set()

    async def _watch_lag(self) -> None:
        patience = Patience(self._config.lag_every)
        while not await waited(self._stopping, self._config.lag_every):
            try:
                self._lag = await self._feed.lag()
                self._lag_fault = None
                if not self._lag.messages:
                    self._empty_at = self._clock() // 1000
            except Exception as exc:  # noqa: BLE001 - the lag is then not known
                self._lag = None
                self._lag_fault = patience.told(exc, "audit.lag.unknown", self._lag_fault)

    def _upkeep(self) -> None:
        self._archive.erase_inputs(self._clock() // 1000 - int(self._config.inputs_days * _DAY))
        if self._maintain is not None:
            self._maintain()

    def figures(self) -> Figures:
        """At once; asks nobody."""
        storer, leader, lag = self.storer, self.leader, self._lag
        now = time.monotonic()
        known = {
            "stream": storer.feed_fault or leader.confirm_fault or self._lag_fault,
            "archive": storer.archive_fault,
            "checks": leader.fault,
        }
        return Figures(
            stored=storer.stored,
            dead_letters=storer.letters,
            messages=None if lag is None else lag.messages,
            unacknowledged=None if lag is None else lag.unacknowledged,
            lag_seconds=self._lag_seconds(),
            leader=leader.leads,
            broken=leader.broken,
            gaps={chain: (gap.missing, now - gap.since) for chain, gap in leader.gaps.items()},
            unsigned=leader.unsigned,
            checkpoints=leader.checkpoints,
            last_checkpoint=leader.signed_at,
            faults={part: why for part, why in known.items() if why is not None},
        )

    def _lag_seconds(self) -> float:
        oldest = self.storer.oldest()
        if oldest is None and self._lag is not None and self._lag.messages:
            oldest = max(self.storer.newest, self._empty_at)
        return 0.0 if oldest is None else max(0.0, self._clock() / 1e9 - oldest / 1e6)
