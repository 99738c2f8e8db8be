"""Runs the verifier in one process of all: whoever has the leadership, for as long as it has it.

What it confirmed it confirms again, since whoever was told may have forgotten. Nothing here is needed for records to
be stored: without a leader they are, and are checked and signed later.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from fulcrum_mcp.ports import AuditFeed, Chains, Leadership, Signer
from fulcrum_mcp.processor.patience import Patience, waited
from fulcrum_mcp.processor.trail_key import TrailKey
from fulcrum_mcp.processor.verifying import Gap, Verifier

__all__ = ["Leader", "LeaderConfig"]

_log = structlog.get_logger("fulcrum.processor")


@dataclass(frozen=True, slots=True)
class LeaderConfig:
    """Seconds, except where it says otherwise."""

    poll: float = 0.2
    checkpoint_every: float = 10.0
    checkpoint_records: int = 4096
    confirm_every: float = 30.0
    upkeep_every: float = 60.0
    ask_key_every: float = 30.0
    """While nothing is signed: whose key the trail has."""
    gap_told: float = 30.0
    """A chain that has waited so long for a record is told of."""
    longest_pass: float = 1.0
    longest: float = 10.0
    """Between two tries when a part does not answer."""


class Leader:
    """`run` it until told to stop. `upkeep` is what the leader does besides, now and then, on a thread."""

    def __init__(
        self,
        chains: Chains,
        leadership: Leadership,
        signer: Signer,
        feed: AuditFeed,
        upkeep: Callable[[], None] = lambda: None,
        config: LeaderConfig | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._chains = chains
        self._leadership = leadership
        self._signer = signer
        self._feed = feed
        self._upkeep = upkeep
        self._config = config or LeaderConfig()
        self._key = TrailKey(chains, signer.key_id, self._config.ask_key_every)
        self._clock = clock
        self._verifier: Verifier | None = None
        self._signed_at = self._said_at = 0.0
        self._unconfirmed: dict[str, int] = {}
        self._told: dict[str, int] = {}
        """Chain -> the seq of the gap that was told of."""
        self._news = asyncio.Event()
        self.leads = False
        self.checkpoints = 0
        self.signed_at: float | None = None
        """When a checkpoint was last signed here; Unix time."""
        self.fault: str | None = None
        self.confirm_fault: str | None = None

    @property
    def broken(self) -> Mapping[str, str]:
        """Why, by chain; known while it leads."""
        verifier = self._verifier  # the thread that leads may let go of it at any moment
        return {} if verifier is None else dict(verifier.broken)

    @property
    def gaps(self) -> Mapping[str, Gap]:
        """Chains that wait for a record; known while it leads."""
        verifier = self._verifier
        return {} if verifier is None else dict(verifier.gaps)

    @property
    def unsigned(self) -> int:
        """Records that no checkpoint covers; known while it leads."""
        verifier = self._verifier
        return 0 if verifier is None else verifier.unsigned

    async def run(self, stopping: asyncio.Event) -> None:
        """Lead when nobody else does; ends when `stopping` is set, with everything that is stored signed."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._confirm_all()), tasks.create_task(self._keep_up())]
            patience = Patience(self._config.longest)
            while not await waited(stopping, await self._turn(patience, finish=False)):
                pass
            await self._turn(Patience(0), finish=True)
            for task in beside:
                task.cancel()
        try:
            await self._confirm()
        except Exception as exc:  # noqa: BLE001 - the next leader says it again
            _log.info("audit.confirm.later", reason=type(exc).__name__)
        await asyncio.to_thread(self._let_go)

    async def _turn(self, patience: Patience, *, finish: bool) -> float:
        """Work if this process leads; the seconds until the next turn."""
        try:
            moved = await asyncio.to_thread(self._work, finish=finish)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the archive is asked anew in the next turn
            self.fault = patience.told(exc, "audit.verify.waits", self.fault)
            await asyncio.to_thread(self._let_go)
            return patience.next()
        self.fault = None
        patience.reset()
        if moved:
            self._unconfirmed |= moved
            self._news.set()
        return self._config.poll

    def _lead(self) -> Verifier | None:
        """Asked before every step and every signature: who has lost the leadership stops there."""
        if not self._leadership.acquire():
            self._forget()
            self._key.check()  # better known before it has to lead
            return None
        if self._verifier is None:
            self._key.check(now=True)
            self._verifier = Verifier(self._chains, self._signer, self._clock)
            self._signed_at = time.monotonic()
            self._said_at = -self._config.confirm_every
            self.leads = True
            _log.info("audit.leader.begins", unsigned=self._verifier.unsigned)
        return self._verifier

    def _work(self, *, finish: bool) -> dict[str, int]:
        """On a thread: chain -> highest contiguous seq, of those that moved, now and then of all."""
        config = self._config
        deadline = time.monotonic() + config.longest_pass
        moved: dict[str, int] = {}
        more = True
        while more and time.monotonic() < deadline:
            verifier = self._lead()
            if verifier is None:
                return moved
            if time.monotonic() - self._said_at >= config.confirm_every:
                self._said_at = time.monotonic()
                moved |= verifier.stored()
            step = verifier.step()
            more = step is not None and step.more
            if step is not None:
                moved |= step.moved
                for fault in step.faults:
                    _log.error("audit.fault", what=fault)
            self._sign(verifier, finish=finish and not more)
            self._tell_gaps(verifier)
        return moved

    def _tell_gaps(self, verifier: Verifier) -> None:
        """Each once."""
        late = time.monotonic() - self._config.gap_told
        old = {chain: gap.missing for chain, gap in verifier.gaps.items() if gap.since < late}
        for chain, missing in old.items():
            if self._told.get(chain) != missing:
                _log.warning(
                    "audit.gap",
                    chain=chain,
                    missing=missing,
                    remedy="start its gateway anew: it sends what its spool has; fulcrum audit reconcile says the rest",
                )
        self._told = old

    async def _keep_up(self) -> None:
        """What may take long and keeps nobody waiting."""
        patience = Patience(self._config.upkeep_every)
        said: str | None = None
        while True:
            if self.leads:
                try:
                    await asyncio.to_thread(self._upkeep)
                    said = None
                except Exception as exc:  # noqa: BLE001 - whatever it is, it is done the next time
                    said = patience.told(exc, "audit.upkeep.later", said)
            await asyncio.sleep(self._config.upkeep_every if self.leads else self._config.poll)

    def _sign(self, verifier: Verifier, *, finish: bool) -> None:
        config = self._config
        now = time.monotonic()
        due = now - self._signed_at >= config.checkpoint_every or verifier.unsigned >= config.checkpoint_records
        if verifier.unsigned and (finish or due) and self._lead() is verifier:
            self.checkpoints += verifier.sign()
            self._signed_at = now
            self.signed_at = self._clock() / 1e9

    async def _confirm_all(self) -> None:
        """Tell the gateways as soon as there is news."""
        patience = Patience(self._config.longest)
        while True:
            await self._news.wait()
            try:
                await self._confirm()
                self.confirm_fault = None
                patience.reset()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is said again
                self.confirm_fault = patience.told(exc, "audit.confirm.waits", self.confirm_fault)
                await asyncio.sleep(patience.next())

    async def _confirm(self) -> None:
        told = self._unconfirmed
        if told:
            self._unconfirmed = {}
            try:
                await self._feed.confirm(told)
            except BaseException:
                self._unconfirmed = told | self._unconfirmed
                raise
        if not self._unconfirmed:
            self._news.clear()

    def _forget(self) -> None:
        if self.leads:
            _log.info("audit.leader.ends")
        self._verifier = None
        self.leads = False

    def _let_go(self) -> None:
        self._forget()
        self._leadership.release()
