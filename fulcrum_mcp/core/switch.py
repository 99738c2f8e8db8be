"""Kill switches: calls of a key, an agent or a tenant, to a tool or a server, are denied; those in flight cancelled."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.errors import Invalid

__all__ = [
    "EVERYBODY",
    "STOPPED",
    "KillSwitch",
    "SwitchIndex",
    "SwitchKind",
    "parse_switch_target",
    "show_switch_target",
    "stop_reason",
]

SwitchKind = Literal["key", "agent", "tool", "server", "tenant"]

EVERYBODY = ""
"""The tenant of a switch that stops the calls of all tenants; a tenant can never be named so."""

STOPPED = "stopped"
"""The code of the reason that a stopped call is denied for."""

_KINDS: tuple[SwitchKind, ...] = get_args(SwitchKind)
_MOST = 256


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """Stops calls while it exists. `target`: a key's id; an agent, server or tenant by name; `<server>__<tool>`."""

    id: str
    tenant: str
    """Whose calls it stops; `EVERYBODY` for all tenants'."""
    kind: SwitchKind
    target: str
    reason: str
    by: str
    """The agent of the principal who threw it."""
    at: int
    """Nanoseconds since the Unix epoch."""


class SwitchIndex:
    """Which switch stops a call; one look-up for each kind in use."""

    __slots__ = ("_by_place", "_kinds", "switches")

    def __init__(self, switches: Iterable[KillSwitch] = ()) -> None:
        self.switches = tuple(switches)
        self._by_place = {(switch.tenant, switch.kind, switch.target): switch for switch in self.switches}
        self._kinds = tuple(kind for kind in _KINDS if any(switch.kind == kind for switch in self.switches))

    def stopping(self, subject: Mapping[str, str | None]) -> KillSwitch | None:
        """The switch that stops a call; `subject` as for `BudgetIndex.matching`."""
        if not self._kinds:
            return None
        tenant = subject["tenant"] or ""
        for kind in self._kinds:
            target = subject.get(kind) or ""
            for owner in (tenant, EVERYBODY):
                switch = self._by_place.get((owner, kind, target))
                if switch is not None:
                    return switch
        return None


def parse_switch_target(value: object, where: str) -> tuple[SwitchKind, str]:
    """`KIND:TARGET`, such as agent:billing-bot or tool:files__delete. Raises `Invalid`."""
    form = f"write KIND:NAME with KIND one of {', '.join(_KINDS)}, for example agent:billing-bot"
    if not isinstance(value, str):
        raise Invalid(f"{where}: a kill switch's target must be text; {form}.")
    name, _, target = value.strip().partition(":")
    kind: SwitchKind | None = next((kind for kind in _KINDS if kind == name), None)
    if kind is None or not target or len(target) > _MOST or not target.isprintable():
        raise Invalid(f'{where}: "{value:.80}" names nothing to stop; {form}.')
    return kind, target


def show_switch_target(switch: KillSwitch) -> str:
    """What `parse_switch_target` reads."""
    return f"{switch.kind}:{switch.target}"


def stop_reason(switch: KillSwitch) -> Reason:
    """Why a call is denied, in the words of whoever threw the switch; the rule is the switch's id."""
    return Reason("", switch.id, STOPPED, f"{switch.kind} {switch.target} is stopped: {switch.reason}")
