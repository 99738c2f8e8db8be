"""Kill switches: thrown, listed, lifted. Whoever throws one stops calls at once, also those under way."""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.record import SWITCH_LIFTED, SWITCH_THROWN, Record, unannounced, unrecorded
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch, SwitchKind, parse_switch_target, show_switch_target
from fulcrum_mcp.errors import Conflict, Invalid
from fulcrum_mcp.ports import SwitchRepository

__all__ = ["Switches", "Thrown", "switch_document"]

_LONGEST_REASON = 500
_LONGEST_NAME = 128
_MOST = 1000
"""Of one tenant: every call looks into all of them."""
_SECOND = 1_000_000_000


class Thrown(NamedTuple):
    """A kill switch; `made` is False when that target was stopped already."""

    switch: KillSwitch
    made: bool


class Switches:
    """The use cases. `admin` may stop what belongs to its own tenant, `platform` everything.

    What changes is recorded first; `changed` is called once it is stored.
    """

    def __init__(
        self,
        repository: SwitchRepository,
        *,
        record: Record = unrecorded,
        changed: Callable[[], None] = unannounced,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._repository = repository
        self._record = record
        self._changed = changed
        self._now = now

    def throw(self, principal: Principal, target: object, reason: object, tenant: str | None = None) -> Thrown:
        """Stop calls: `target` is KIND:NAME; `tenant` whose calls, None the caller's own, `EVERYBODY` all tenants'.

        Idempotent: what is stopped already stays as it is. Raises `Unprivileged`, `Invalid`, `Unavailable`.
        """
        require(principal, "admin")
        kind, name = parse_switch_target(target, "target")
        owner = self._owner(principal, tenant, kind, name)
        switch = KillSwitch(
            id=f"ks_{secrets.token_hex(8)}",
            tenant=owner,
            kind=kind,
            target=name,
            reason=_reason(reason),
            by=principal.agent,
            at=self._now(),
        )
        known = self._known(switch)
        if known is not None:
            return Thrown(known, made=False)
        if len(self._repository.list(owner)) >= _MOST:
            raise Conflict(f"{_MOST} kill switches are on already; lift some, or stop a server or a tenant instead.")
        self._record(principal, SWITCH_THROWN, switch.id, {"kill_switch": switch_document(switch)})
        try:
            self._repository.add(switch)
        except Conflict:  # somebody was faster
            known = self._known(switch)
            if known is None:
                raise
            return Thrown(known, made=False)
        self._changed()
        return Thrown(switch, made=True)

    def list(self, principal: Principal) -> Sequence[KillSwitch]:
        """Those that stop calls of the caller's tenant, newest first, then those that stop everybody's.

        Raises `Unprivileged`, `Unavailable`.
        """
        require(principal, "admin")
        return [*self._repository.list(principal.tenant), *self._repository.list(EVERYBODY)]

    def list_of(self, principal: Principal, tenant: str) -> Sequence[KillSwitch]:
        """As `list`, for another tenant. Raises `Unprivileged`, `Unavailable`."""
        if tenant != principal.tenant:
            require(principal, "platform")
        require(principal, "admin")
        return [*self._repository.list(tenant), *self._repository.list(EVERYBODY)]

    def lift(self, principal: Principal, switch_id: str, tenant: str | None = None) -> KillSwitch:
        """Calls may go on. `tenant` as in `throw`; without it, `platform` also finds everybody's.

        Raises `Unprivileged`, `NotFound`, `Unavailable`.
        """
        owner = self._owner(principal, tenant)
        owners = [owner]
        if tenant is None and "platform" in principal.scopes:
            owners.append(EVERYBODY)
        for each in owners:
            for switch in self._repository.list(each):
                if switch.id == switch_id:
                    self._record(principal, SWITCH_LIFTED, switch_id, {"kill_switch": switch_document(switch)})
                    owner = each
        lifted = self._repository.delete(owner, switch_id)
        self._changed()
        return lifted

    @staticmethod
    def _owner(principal: Principal, tenant: str | None, kind: SwitchKind | None = None, name: str = "") -> str:
        """Whose switch it is; a tenant's own is always that tenant's. Raises `Unprivileged`, `Invalid`."""
        if tenant is not None and tenant != EVERYBODY and (len(tenant) > _LONGEST_NAME or not tenant.isprintable()):
            raise Invalid(f"tenant: at most {_LONGEST_NAME} printable characters")
        owner = principal.tenant if tenant is None else tenant
        if kind == "tenant":
            if tenant not in (None, EVERYBODY, name):
                raise Invalid(f'target: "tenant:{name}" stops the calls of {name}; leave the tenant out')
            owner = name
        require(principal, "admin" if owner == principal.tenant else "platform")
        return owner

    def _known(self, switch: KillSwitch) -> KillSwitch | None:
        same = (switch.kind, switch.target)
        found = (other for other in self._repository.list(switch.tenant) if (other.kind, other.target) == same)
        return next(found, None)


def switch_document(switch: KillSwitch) -> dict[str, Any]:
    """A kill switch for people and programs."""
    return {
        "id": switch.id,
        "target": show_switch_target(switch),
        "tenant": None if switch.tenant == EVERYBODY else switch.tenant,
        "everybody": switch.tenant == EVERYBODY,
        "reason": switch.reason,
        "by": switch.by,
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(switch.at // _SECOND)),
    }


def _reason(value: object) -> str:
    said = value.strip() if isinstance(value, str) else ""
    if not said or len(said) > _LONGEST_REASON or not said.isprintable():
        raise Invalid(f"reason: say in 1 to {_LONGEST_REASON} printable characters why; whoever is stopped reads it")
    return said
