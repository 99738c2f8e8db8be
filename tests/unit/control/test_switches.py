"""Kill switches: who may throw which, recorded before they hold, thrown once."""

from collections.abc import Mapping
from typing import Any

import pytest

from fulcrum_adapters.memory.switches import MemorySwitches
from fulcrum_mcp.control.switches import Switches, switch_document
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch
from fulcrum_mcp.errors import Conflict, Invalid, NotFound, Unavailable, Unprivileged

ADMIN = Principal("acme", "ann", "k1", scopes=frozenset({"admin"}))
PLATFORM = Principal("default", "operator", "k2", scopes=frozenset({"platform"}))
CALLER = Principal("acme", "bot", "k3", scopes=frozenset({"tool:call", "policy:write", "cost:write"}))


class Desk:
    """The use cases, and what was done in which order."""

    def __init__(self) -> None:
        self.repository = MemorySwitches()
        self.done: list[tuple[str, str, dict[str, Any]]] = []
        self.fault: Exception | None = None
        self.switches = Switches(
            self.repository, record=self._record, changed=self._changed, now=lambda: 86_400 * 10**9
        )

    def _record(self, principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        if self.fault is not None:
            raise self.fault
        self.done.append((kind, principal.tenant, {"subject": subject, **data}))

    def _changed(self) -> None:
        self.done.append(("changed", "", {}))

    @property
    def kinds(self) -> list[str]:
        return [kind.rpartition(".")[2] for kind, _, _ in self.done]


def test_a_switch_is_recorded_stored_and_told_in_this_order() -> None:
    desk = Desk()
    thrown = desk.switches.throw(ADMIN, "agent:bot", "  runs wild ")
    assert thrown.made
    assert thrown.switch == KillSwitch(thrown.switch.id, "acme", "agent", "bot", "runs wild", "ann", 86_400 * 10**9)
    assert desk.kinds == ["thrown", "changed"]
    assert desk.done[0][2]["kill_switch"] == {
        "id": thrown.switch.id,
        "target": "agent:bot",
        "tenant": "acme",
        "everybody": False,
        "reason": "runs wild",
        "by": "ann",
        "since": "1970-01-02T00:00:00Z",
    }
    assert desk.switches.lift(ADMIN, thrown.switch.id) == thrown.switch
    assert desk.kinds == ["thrown", "changed", "lifted", "changed"]
    assert list(desk.switches.list(ADMIN)) == []


def test_what_cannot_be_recorded_is_not_done() -> None:
    desk = Desk()
    known = desk.switches.throw(ADMIN, "agent:bot", "x").switch
    desk.fault = Unavailable("trail: full")
    with pytest.raises(Unavailable):
        desk.switches.throw(ADMIN, "agent:other", "x")
    with pytest.raises(Unavailable):
        desk.switches.lift(ADMIN, known.id)
    assert list(desk.switches.list(ADMIN)) == [known]
    assert desk.kinds == ["thrown", "changed"]


def test_throwing_twice_is_throwing_once() -> None:
    desk = Desk()
    first = desk.switches.throw(ADMIN, "agent:bot", "x")
    again = desk.switches.throw(ADMIN, " agent:bot", "y")
    assert (again.switch, again.made) == (first.switch, False)
    assert desk.kinds == ["thrown", "changed"]


def test_whoever_was_faster_has_thrown_it() -> None:
    desk = Desk()
    theirs = KillSwitch("ks_theirs", "acme", "agent", "bot", "x", "bob", 1)
    add = desk.repository.add

    def late(switch: KillSwitch) -> None:
        add(theirs)
        add(switch)

    desk.repository.add = late  # type: ignore[method-assign]
    assert desk.switches.throw(ADMIN, "agent:bot", "y") == (theirs, False)
    desk.repository.list = lambda _: []  # type: ignore[method-assign,assignment]
    with pytest.raises(Conflict):
        desk.switches.throw(ADMIN, "agent:bot", "y")


@pytest.mark.parametrize(
    ("principal", "target", "tenant", "owner"),
    [
        (ADMIN, "key:k9", None, "acme"),
        (ADMIN, "tool:files__delete", "acme", "acme"),
        (ADMIN, "server:files", None, "acme"),
        (ADMIN, "tenant:acme", None, "acme"),
        (PLATFORM, "agent:bot", "acme", "acme"),
        (PLATFORM, "server:files", EVERYBODY, EVERYBODY),
        (PLATFORM, "tenant:acme", None, "acme"),
        (PLATFORM, "tenant:acme", EVERYBODY, "acme"),
        (PLATFORM, "agent:bot", None, "default"),
    ],
)
def test_whose_calls_it_stops(principal: Principal, target: str, tenant: str | None, owner: str) -> None:
    desk = Desk()
    assert desk.switches.throw(principal, target, "x", tenant).switch.tenant == owner
    assert desk.done[0][1] == principal.tenant, "recorded in the trail of whoever did it"


@pytest.mark.parametrize(
    ("principal", "target", "tenant"),
    [
        (CALLER, "agent:bot", None),
        (CALLER, "tenant:acme", None),
        (ADMIN, "agent:bot", "other"),
        (ADMIN, "server:files", EVERYBODY),
        (ADMIN, "tenant:other", None),
        (ADMIN, "tenant:other", "other"),
    ],
)
def test_nobody_stops_what_is_not_theirs(principal: Principal, target: str, tenant: str | None) -> None:
    desk = Desk()
    with pytest.raises(Unprivileged):
        desk.switches.throw(principal, target, "x", tenant)
    assert desk.done == []


def test_nobody_lifts_or_sees_what_is_not_theirs() -> None:
    desk = Desk()
    everybodys = desk.switches.throw(PLATFORM, "server:files", "x", EVERYBODY).switch
    acmes = desk.switches.throw(PLATFORM, "agent:bot", "x", "acme").switch
    others = desk.switches.throw(PLATFORM, "agent:bot", "x", "other").switch
    assert list(desk.switches.list(ADMIN)) == [acmes, everybodys]
    for principal, switch in ((ADMIN, everybodys), (ADMIN, others), (PLATFORM, acmes)):
        with pytest.raises(NotFound):
            desk.switches.lift(principal, switch.id)
    with pytest.raises(Unprivileged):
        desk.switches.lift(ADMIN, everybodys.id, EVERYBODY)
    with pytest.raises(Unprivileged):
        desk.switches.lift(CALLER, acmes.id)
    with pytest.raises(Unprivileged):
        desk.switches.list(CALLER)
    with pytest.raises(Unprivileged):
        desk.switches.list_of(ADMIN, "other")
    assert list(desk.switches.list_of(PLATFORM, "other")) == [others, everybodys]
    assert desk.switches.lift(PLATFORM, everybodys.id) == everybodys
    assert desk.switches.lift(PLATFORM, acmes.id, "acme") == acmes
    assert switch_document(everybodys)["tenant"] is None


@pytest.mark.parametrize("target", [None, 7, "", "agent", "agent:", "budget:x", "agent:a\nb", "agent:" + "x" * 300])
def test_targets_that_name_nothing_are_refused(target: object) -> None:
    with pytest.raises(Invalid, match="target"):
        Desk().switches.throw(ADMIN, target, "x")


@pytest.mark.parametrize("reason", [None, "", "  ", "x" * 501, "a\x1b[31m", "two\nlines", 5])
def test_reasons_that_say_nothing_or_too_much_are_refused(reason: object) -> None:
    with pytest.raises(Invalid, match="reason"):
        Desk().switches.throw(ADMIN, "agent:bot", reason)


@pytest.mark.parametrize("tenant", ["x" * 200, "a\nb"])
def test_tenants_that_cannot_be_are_refused(tenant: str) -> None:
    with pytest.raises(Invalid, match="tenant"):
        Desk().switches.throw(PLATFORM, "agent:bot", "x", tenant)


def test_another_tenant_cannot_own_a_tenants_switch() -> None:
    with pytest.raises(Invalid, match="leave the tenant out"):
        Desk().switches.throw(PLATFORM, "tenant:acme", "x", "other")


def test_switches_have_a_bound_for_every_call_looks_into_them() -> None:
    desk = Desk()
    for number in range(1000):
        desk.repository.add(KillSwitch(f"ks_{number}", "acme", "agent", f"bot{number}", "x", "ann", number))
    with pytest.raises(Conflict, match="lift some"):
        desk.switches.throw(ADMIN, "agent:one-more", "x")
    assert desk.switches.throw(ADMIN, "agent:bot7", "x").made is False
    assert desk.switches.throw(PLATFORM, "server:files", "x", EVERYBODY).made
