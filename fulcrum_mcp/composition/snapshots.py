"""Making snapshots of policies and of what the control plane keeps; and noticing that they changed.

Policies come from the folder that this gateway was given; else they are those that were published; else a starter.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import fingerprint, passed_over, read_policies
from fulcrum_adapters.rego.library import library
from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.composition.compiling import compile_beside
from fulcrum_mcp.core.policy import PolicySource
from fulcrum_mcp.core.scope import BudgetIndex
from fulcrum_mcp.core.switch import SwitchIndex
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.gateway.snapshot import Limits, Snapshot, SnapshotHolder
from fulcrum_mcp.ports import ConfigRepository, PolicyEngine, StoredConfig, StoredPolicies
from fulcrum_mcp.settings import Settings

__all__ = ["OBSERVE", "Snapshots", "with_library"]

OBSERVE: Final = "observe"
"""The built-in policy that allows and records everything: what `up` and `wrap` do without policies."""

_UNREADABLE: Final = (OSError, RuntimeError, ValueError, FulcrumError)
"""What a folder can do to who reads it: files that vanish, links in a circle, texts that are none."""

_log = structlog.get_logger("fulcrum.snapshot")


def with_library(source: PolicySource) -> PolicySource:
    """Published policies as they are judged: they are kept without the functions that come with Fulcrum."""
    return PolicySource((*library(), *source.modules), source.data, source.name)


class Snapshots:
    """Keeps the holder's snapshot current. A broken change is refused, said, and the old snapshot goes on.

    Policies that were published are compiled beside the event loop. Until they are, calls are judged by the snapshot
    before them and by every kill switch that was thrown since: nothing is loosened (a switch lifted, a budget raised)
    before the policies that were published with it or earlier hold. The newest wins; what it overtakes is given up.

    `otherwise`: the starter policy where there are none; None: then every call is denied.
    """

    def __init__(self, settings: Settings, repository: ConfigRepository, otherwise: str | None = OBSERVE) -> None:
        self._settings = settings
        self._repository = repository
        self._otherwise = otherwise
        self._print = ""
        self._config = StoredConfig(0)
        """What calls are judged by."""
        self._newest = self._config
        """What was read last: another one only while its policies are compiled."""
        self._coming: tuple[str, asyncio.Task[None]] | None = None
        """The digest of the policies that are compiled, and who does it."""
        self._engine: PolicyEngine | None = None
        self._judged_by = ""
        """The digest of the published policies that the engine is made of."""
        self.refused: str | None = None
        """Why the newest change of the policies is not live; None when it is."""
        self.on_change: Callable[[str], None] | None = None
        """Told in a sentence about each swap and each refusal."""

    @property
    def revision(self) -> int:
        """Of the stored configuration, as it was read last; its policies may still be compiled."""
        return self._newest.revision

    @property
    def where(self) -> Path | str:
        """The folder or starter policy that is judged by, unless policies were published; "" is none."""
        return self._settings.policies if self._settings.policies is not None else self._otherwise or ""

    @property
    def observing(self) -> bool:
        """True if no policies were given or published, and everything is allowed."""
        return self._follows_store and not self._judged_by and self._otherwise is not None

    @property
    def judging(self) -> bool:
        """False where nothing could allow a call: no policies were given, published, or built in."""
        return self._settings.policy.engine == "opa" or (self._engine is not None and bool(self._engine.info.names))

    @property
    def _follows_store(self) -> bool:
        return self._settings.policies is None and self._settings.policy.engine == "rego"

    def first(self) -> SnapshotHolder:
        """The snapshot to start with. Raises `Invalid`: a gateway does not start on broken policies."""
        self._config = self._newest = self._repository.read()
        self._print = self._fingerprint()
        stored = self._config.policies
        if self._follows_store and stored is not None:
            self._engine, self._judged_by = self._load(self._published(stored)), stored.digest
        else:
            self._engine = self._load(self._admitted())
        needed = self._settings.policies is not None and self._settings.policy.engine == "rego"
        if needed and not self._engine.info.names:
            raise Invalid(
                f"{self.where}: no policy in it, so every call would be denied; add a .rego file with "
                "`package fulcrum.policies.NAME`, or name a starter policy such as allow_all"
            )
        return SnapshotHolder(self._snapshot())

    async def refresh_folder(self, holder: SnapshotHolder) -> bool:
        """Look at the folder; swap the snapshot if its policies are others and can be used. True if it was swapped.

        Trying policies takes its time: the store must be looked at meanwhile.
        """
        await self._look_at_folder()
        changed = holder.current.engine is not self._engine
        if changed:
            holder.swap(self._snapshot())
        return changed

    async def refresh_store(self, holder: SnapshotHolder) -> bool:
        """`read_store`, then `settled`. True if the snapshot was swapped."""
        before = holder.current
        await self.read_store(holder)
        await self.settled()
        return holder.current is not before

    async def read_store(self, holder: SnapshotHolder) -> None:
        """Look into the store; swap the snapshot if something changed; one call at a time.

        All of it holds then, unless policies must be compiled first: see the class, and `settled`.
        Raises `Unavailable` when the store does not answer.
        """
        config = await asyncio.to_thread(self._newer)
        if config is None:
            return
        self._newest = config
        stored = config.policies
        if self._follows_store and stored is not None and stored.digest != self._judged_by:
            self._begin(stored, holder)
            thrown = [each for each in config.switches if each not in self._config.switches]
            if not thrown:
                return
            self._config = replace(self._config, switches=(*self._config.switches, *thrown))
        else:
            self._give_up()
            self._config = config
        holder.swap(self._snapshot())

    async def settled(self) -> None:
        """Wait until everything that was read is in force, or was refused."""
        while self._coming is not None:
            await asyncio.wait([self._coming[1]])

    async def close(self) -> None:
        """Compile no more. Idempotent."""
        coming = self._give_up()
        if coming is not None:
            await asyncio.wait([coming])

    def _newer(self) -> StoredConfig | None:
        """The whole configuration if it is another than the one that was read last."""
        return self._repository.read() if self._repository.revision() != self._newest.revision else None

    def _begin(self, stored: StoredPolicies, holder: SnapshotHolder) -> None:
        """Compile these policies, unless that is being done; others that are being compiled are given up."""
        if self._coming is None or self._coming[0] != stored.digest:
            self._give_up()
            self._coming = (stored.digest, asyncio.create_task(self._bring(stored, holder)))

    def _give_up(self) -> "asyncio.Task[None] | None":
        coming, self._coming = self._coming, None
        if coming is None:
            return None
        coming[1].cancel()
        return coming[1]

    async def _bring(self, stored: StoredPolicies, holder: SnapshotHolder) -> None:
        """Policies that cannot be used leave the old ones; budgets and kill switches hold all the same."""
        try:
            engine = await self._compiled(self._published(stored))
        except Exception as fault:  # noqa: BLE001 - whatever it is, the rest of the configuration must hold
            self._refuse(fault)
        else:
            self._judge_by(engine, stored.digest)
        self._coming = None
        self._config = self._newest
        holder.swap(self._snapshot())

    async def _look_at_folder(self) -> None:
        if self._settings.policy.engine == "opa" or self._settings.policies is None:
            return
        now = await asyncio.to_thread(self._fingerprint)
        changed, self._print = now != self._print, now
        if changed:
            try:
                engine = await self._compiled(await asyncio.to_thread(self._admitted))
            except FulcrumError as fault:
                self._refuse(fault)
            else:
                self._judge_by(engine, "")

    def _judge_by(self, engine: PolicyEngine, digest: str) -> None:
        self._engine, self._judged_by, self.refused = engine, digest, None
        _log.info("policies live", revision=engine.info.revision, policies=engine.info.names)
        self._tell(f"policies live: {', '.join(engine.info.names)}")

    def _refuse(self, fault: Exception) -> None:
        self.refused = str(fault) or type(fault).__name__
        known = isinstance(fault, FulcrumError)
        _log.warning("policies refused, the old ones stay", reason=self.refused, exc_info=None if known else fault)
        self._tell(f"policies refused, the old ones stay:\n{self.refused}")

    def _tell(self, sentence: str) -> None:
        if self.on_change is not None:
            self.on_change(sentence)

    def _fingerprint(self) -> str:
        place = Path(self.where)
        try:
            return fingerprint(place) if self.where and place.exists() else str(self.where)
        except _UNREADABLE as fault:
            return f"unreadable: {fault}"

    def _published(self, stored: StoredPolicies) -> PolicySource:
        """As they were admitted before they were stored."""
        if stored.source is None:
            raise Invalid(f"revision {stored.number} of the policies came without its source; publish them anew")
        return self._with_data(with_library(stored.source))

    def _admitted(self) -> PolicySource | None:
        """The policies as they are now, compiled and tried in a process that can be killed."""
        if self._settings.policy.engine == "opa":
            return None
        if not self.where:
            return PolicySource(())
        from fulcrum_adapters.rego.admission import admit  # noqa: PLC0415 - not needed with an external engine
        from fulcrum_adapters.rego.testing import read_suite  # noqa: PLC0415 - same

        try:
            source = read_policies(self.where)
        except FulcrumError:
            raise
        except _UNREADABLE as fault:
            raise Invalid(f"{self.where}: cannot be read ({fault}); mend it or take it away") from fault
        source = self._with_data(source)
        place = Path(self.where)
        for problem in passed_over(place):
            _log.warning(problem.message, file=problem.path, remedy=problem.hint)
        admit(source, read_suite(place) if place.exists() else None)
        return source

    def _with_data(self, source: PolicySource) -> PolicySource:
        data = self._settings.policy.data
        return PolicySource(source.modules, {**source.data, **data}, source.name) if data else source

    def _load(self, source: PolicySource | None) -> PolicyEngine:
        policy = self._settings.policy
        if source is None:
            from fulcrum_adapters.opa import OpaConfig, OpaEngine  # noqa: PLC0415 - brings its HTTP client

            return OpaEngine(OpaConfig(url=policy.opa_url or "", timeout=policy.timeout))
        return RegoEngine(source, max_input=self._max_input)

    async def _compiled(self, source: PolicySource | None) -> PolicyEngine:
        """`_load`, beside the event loop."""
        return self._load(None) if source is None else await compile_beside(source, self._max_input)

    @property
    def _max_input(self) -> int:
        return self._settings.policy.max_input * 2

    def _snapshot(self) -> Snapshot:
        assert self._engine is not None
        settings, config = self._settings, self._config
        budgets = (*settings.budgets, *config.budgets)
        made_of = f"{self._engine.info.revision}\n{budgets!r}\n{config.switches!r}"
        return Snapshot(
            revision=hashlib.sha256(made_of.encode()).hexdigest()[:16],
            engine=self._engine,
            matcher=BudgetIndex(budgets).matching,
            substitute=substitute,
            limits=Limits(
                max_input=settings.policy.max_input,
                max_body=settings.limits.max_request,
                deny_as=settings.deny_as,
                inputs=settings.audit.inputs,
            ),
            labels={server.name: server.labels for server in settings.servers},
            switches=SwitchIndex(config.switches),
            config_revision=config.revision,
        )
