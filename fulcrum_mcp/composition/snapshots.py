"""Making snapshots of policies, configuration and the control plane's budgets; and noticing that they changed."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import fingerprint, read_policies
from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.policy import PolicySource
from fulcrum_mcp.core.scope import BudgetIndex
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.gateway.snapshot import Limits, Snapshot, SnapshotHolder
from fulcrum_mcp.ports import PolicyEngine
from fulcrum_mcp.settings import Settings

__all__ = ["OBSERVE", "Snapshots"]

OBSERVE: Final = "observe"
"""The built-in policy that allows and records everything: what `up` and `wrap` do without policies."""

_UNREADABLE: Final = (OSError, RuntimeError, ValueError, FulcrumError)
"""What a folder can do to who reads it: files that vanish, links in a circle, texts that are none."""

_log = structlog.get_logger("fulcrum.snapshot")


class Snapshots:
    """Keeps the holder's snapshot current. A broken change is refused, said, and the old snapshot goes on."""

    def __init__(self, settings: Settings, stored_budgets: Callable[[], Sequence[Budget]]) -> None:
        self._settings = settings
        self._stored_budgets = stored_budgets
        self.where: Final = settings.policies if settings.policies is not None else OBSERVE
        """The folder or starter policy that is judged by."""
        self._print = ""
        self._budgets: tuple[Budget, ...] = ()
        self._engine: PolicyEngine | None = None
        self.refused: str | None = None
        """Why the newest change of the policies is not live; None when it is."""
        self.on_change: Callable[[str], None] | None = None
        """Told in a sentence about each swap and each refusal."""

    @property
    def observing(self) -> bool:
        """True if no policies were given."""
        return self._settings.policies is None and self._settings.policy.engine == "rego"

    def first(self) -> SnapshotHolder:
        """The snapshot to start with. Raises `Invalid`: a gateway does not start on broken policies."""
        self._print = self._fingerprint()
        self._engine = self._load(self._admitted())
        if self._settings.policy.engine == "rego" and not self._engine.info.names:
            raise Invalid(
                f"{self.where}: no policy in it, so every call would be denied; add a .rego file with "
                "`package fulcrum.policies.NAME`, or name a starter policy such as allow_all"
            )
        self._budgets = self._all_budgets()
        return SnapshotHolder(self._snapshot())

    async def refresh(self, holder: SnapshotHolder) -> bool:
        """Look for changes; swap the snapshot if there are any. True if it was swapped."""
        swapped = False
        if self._settings.policy.engine != "opa":
            now = await asyncio.to_thread(self._fingerprint)
            changed, self._print = now != self._print, now
            if changed and await self._reload():
                holder.current = self._snapshot()
                swapped = True
        budgets = await asyncio.to_thread(self._all_budgets)
        if budgets != self._budgets:
            self._budgets = budgets
            holder.current = self._snapshot()
            swapped = True
        return swapped

    async def _reload(self) -> bool:
        try:
            source = await asyncio.to_thread(self._admitted)
            self._engine = self._load(source)
        except FulcrumError as fault:
            self.refused = str(fault)
            _log.warning("policies refused, the old ones stay", reason=self.refused)
            self._tell(f"policies refused, the old ones stay:\n{fault}")
            return False
        self.refused = None
        _log.info("policies live", revision=self._engine.info.revision, policies=self._engine.info.names)
        self._tell(f"policies live: {', '.join(self._engine.info.names)}")
        return True

    def _tell(self, sentence: str) -> None:
        if self.on_change is not None:
            self.on_change(sentence)

    def _fingerprint(self) -> str:
        place = Path(self.where)
        try:
            return fingerprint(place) if place.exists() else str(self.where)
        except _UNREADABLE as fault:
            return f"unreadable: {fault}"

    def _admitted(self) -> PolicySource | None:
        """The policies as they are now, compiled and tried in a process that can be killed."""
        if self._settings.policy.engine == "opa":
            return None
        from fulcrum_adapters.rego.admission import admit  # noqa: PLC0415 - not needed with an external engine
        from fulcrum_adapters.rego.testing import read_suite  # noqa: PLC0415 - same

        try:
            source = read_policies(self.where)
        except FulcrumError:
            raise
        except _UNREADABLE as fault:
            raise Invalid(f"{self.where}: cannot be read ({fault}); mend it or take it away") from fault
        data = self._settings.policy.data
        if data:
            source = PolicySource(source.modules, {**source.data, **data}, source.name)
        place = Path(self.where)
        admit(source, read_suite(place) if place.exists() else None)
        return source

    def _load(self, source: PolicySource | None) -> PolicyEngine:
        policy = self._settings.policy
        if source is None:
            from fulcrum_adapters.opa import OpaConfig, OpaEngine  # noqa: PLC0415 - brings its HTTP client

            return OpaEngine(OpaConfig(url=policy.opa_url or "", timeout=policy.timeout))
        return RegoEngine(source, max_input=policy.max_input * 2)

    def _all_budgets(self) -> tuple[Budget, ...]:
        return (*self._settings.budgets, *self._stored_budgets())

    def _snapshot(self) -> Snapshot:
        assert self._engine is not None
        settings = self._settings
        revision = hashlib.sha256(f"{self._engine.info.revision}\n{self._budgets!r}".encode()).hexdigest()[:16]
        return Snapshot(
            revision=revision,
            engine=self._engine,
            matcher=BudgetIndex(self._budgets).matching,
            substitute=substitute,
            limits=Limits(
                max_input=settings.policy.max_input,
                max_body=settings.limits.max_request,
                deny_as=settings.deny_as,
                inputs=settings.audit.inputs,
            ),
            labels={server.name: server.labels for server in settings.servers},
        )
