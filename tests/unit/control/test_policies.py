"""Publishing policies: admitted, recorded, stored, told; put back as they were."""

from collections.abc import Mapping
from typing import Any

import pytest

from fulcrum_adapters.memory.policies import MemoryPolicies
from fulcrum_mcp.control.policies import Policies, policies_document
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.errors import Invalid, NotFound, Unavailable, Unprivileged

AUTHOR = Principal("default", "ann", "k1", scopes=frozenset({"policy:write", "policy:read"}))
READER = Principal("default", "bob", "k2", scopes=frozenset({"policy:read"}))
STRANGER = Principal("acme", "eve", "k3", scopes=frozenset({"admin"}))
PLATFORM = Principal("acme", "ops", "k4", scopes=frozenset({"platform"}))


class Desk:
    """The use cases over an admission that refuses texts with `bad` in them."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.facts: list[Mapping[str, Any]] = []
        self.fault: Exception | None = None
        self.repository = MemoryPolicies()
        self.policies = Policies(
            self.repository,
            self,
            owner="default",
            record=self._record,
            changed=lambda: self.done.append("changed"),
            now=lambda: 86_400 * 10**9,
        )

    def files(self, name: str, files: Mapping[str, str]) -> PolicySource:
        self.done.append("admitted")
        if any("bad" in text for text in files.values()):
            raise Invalid("p.rego:1:1: bad")
        return PolicySource(tuple(PolicyModule(path, text) for path, text in files.items()), {"a": 1}, name)

    def again(self, source: PolicySource) -> None:
        self.done.append(f"admitted again {source.name}")

    def _record(self, principal: Principal, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        if self.fault is not None:
            raise self.fault
        assert kind == "dev.fulcrum.policy.published"
        assert subject.startswith("policies:")
        self.done.append(f"recorded for {principal.agent}")
        self.facts.append(data["policies"])


def test_a_set_is_admitted_recorded_stored_and_told_in_this_order() -> None:
    desk = Desk()
    made = desk.policies.publish(AUTHOR, "one", {"p.rego": "package p"})
    assert (made.made, made.policies.number, made.policies.author) == (True, 1, "ann")
    assert desk.done == ["admitted", "recorded for ann", "changed"]
    assert desk.facts == [{"digest": made.policies.digest, "modules": ["p.rego"], "count": 1, "replaces": None}]
    assert policies_document(desk.policies.show(READER)) == {
        "number": 1,
        "digest": made.policies.digest,
        "author": "ann",
        "published_at": "1970-01-02T00:00:00Z",
        "name": "one",
        "modules": [{"path": "p.rego", "source": "package p"}],
        "data": {"a": 1},
    }


def test_what_is_not_admitted_or_recorded_is_not_stored() -> None:
    desk = Desk()
    with pytest.raises(Invalid):
        desk.policies.publish(AUTHOR, "one", {"p.rego": "bad"})
    desk.fault = Unavailable("trail: full")
    with pytest.raises(Unavailable):
        desk.policies.publish(AUTHOR, "one", {"p.rego": "good"})
    assert desk.repository.get() is None
    assert desk.done == ["admitted", "admitted"]


def test_publishing_the_same_again_changes_nothing() -> None:
    desk = Desk()
    first = desk.policies.publish(AUTHOR, "one", {"p.rego": "package p"})
    again = desk.policies.publish(AUTHOR, "one", {"p.rego": "package p"})
    assert (again.policies, again.made) == (first.policies, False)
    assert desk.done.count("changed") == 1


def test_an_older_revision_is_put_back_under_a_new_number() -> None:
    desk = Desk()
    first = desk.policies.publish(AUTHOR, "one", {"p.rego": "package one"}).policies
    second = desk.policies.publish(AUTHOR, "two", {"p.rego": "package two"}).policies
    back = desk.policies.restore(AUTHOR, 1)
    assert back.made
    assert (back.policies.number, back.policies.digest) == (3, first.digest)
    assert desk.done[-3:] == ["admitted again one", "recorded for ann", "changed"]
    assert (desk.facts[-1]["restored"], desk.facts[-1]["replaces"]) == (1, second.digest)
    assert [each.number for each in desk.policies.list(READER)] == [3, 2, 1]
    assert [each.number for each in desk.policies.list(READER, 1)] == [3]
    assert not desk.policies.restore(AUTHOR, 3).made
    with pytest.raises(NotFound, match="no revision 9"):
        desk.policies.restore(AUTHOR, 9)


def test_nothing_published_is_said_so() -> None:
    desk = Desk()
    assert list(desk.policies.list(READER)) == []
    with pytest.raises(NotFound, match="no policies were published"):
        desk.policies.show(READER)


def test_only_the_operators_tenant_changes_what_judges_everybody() -> None:
    desk = Desk()
    for principal in (READER, STRANGER):
        with pytest.raises(Unprivileged):
            desk.policies.publish(principal, "one", {"p.rego": "package p"})
        with pytest.raises(Unprivileged):
            desk.policies.restore(principal, 1)
    assert desk.done == [], "refused before anything is tried"
    for act in (lambda: desk.policies.list(STRANGER), lambda: desk.policies.show(STRANGER)):
        with pytest.raises(Unprivileged):
            act()
    assert desk.policies.publish(PLATFORM, "one", {"p.rego": "package p"}).made
