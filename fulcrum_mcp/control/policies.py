"""Policies for all gateways of an installation: published as a set, listed, shown, and put back as they were.

The set judges the calls of every tenant, so it belongs to the operator's tenant: others need `platform`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fulcrum_mcp.control.access import require_of_operator
from fulcrum_mcp.control.record import POLICIES_PUBLISHED, Record, unannounced, unrecorded
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.policy import PolicySource, source_digest
from fulcrum_mcp.errors import NotFound
from fulcrum_mcp.ports import PolicyRepository, StoredPolicies

__all__ = ["Admission", "Policies", "Published", "policies_document"]

MOST_LISTED = 100
_MOST_NAMED = 50
"""Modules that are named in a record."""
_SECOND = 1_000_000_000


class Admission(Protocol):
    """Refuses policies that cannot be used, in a process that can be killed; *synchronous*."""

    def files(self, name: str, files: Mapping[str, str]) -> PolicySource:
        """What the files of a policy folder (relative path -> text) make: compiled, tried, their tests passed.

        Raises `Invalid`, each fault with its place.
        """
        ...

    def again(self, source: PolicySource) -> None:
        """The same for what was admitted before, without its tests. Raises `Invalid`."""
        ...


class Published(NamedTuple):
    """A revision; `made` is False when the newest one is the same already."""

    policies: StoredPolicies
    made: bool


class Policies:
    """The use cases. `owner`: the operator's tenant. `overruled`: why a gateway does not judge by what is published.

    What changes is recorded first; `changed` is called once it is stored.
    """

    def __init__(
        self,
        repository: PolicyRepository,
        admission: Admission,
        *,
        owner: str,
        overruled: Callable[[], str | None] = lambda: None,
        record: Record = unrecorded,
        changed: Callable[[], None] = unannounced,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._repository = repository
        self._admission = admission
        self._owner = owner
        self.overruled = overruled
        self._record = record
        self._changed = changed
        self._now = now

    def publish(self, principal: Principal, name: str, files: Mapping[str, str]) -> Published:
        """Admit a folder's files as a set and make it the newest revision.

        Raises `Unprivileged`, `Invalid`, `Unavailable`.
        """
        self._require(principal, "policy:write")
        return self._put(principal, self._admission.files(name, files))

    def restore(self, principal: Principal, number: int) -> Published:
        """Make an older revision the newest again, under a number of its own.

        Raises `Unprivileged`, `NotFound`, `Invalid`, `Unavailable`.
        """
        self._require(principal, "policy:write")
        source = self._find(number).source
        assert source is not None
        self._admission.again(source)
        return self._put(principal, source, restored=number)

    def list(self, principal: Principal, limit: int = MOST_LISTED) -> Sequence[StoredPolicies]:
        """Newest first, without their sources. Raises `Unprivileged`, `Unavailable`."""
        self._require(principal, "policy:read")
        return self._repository.list(limit)

    def show(self, principal: Principal, number: int | None = None) -> StoredPolicies:
        """A revision with its source, the newest without a number. Raises `Unprivileged`, `NotFound`, ..."""
        self._require(principal, "policy:read")
        return self._find(number)

    def _require(self, principal: Principal, scope: str) -> None:
        require_of_operator(principal, scope, self._owner)

    def _find(self, number: int | None) -> StoredPolicies:
        found = self._repository.get(number)
        if found is None:
            which = "no policies were published yet" if number is None else f"no revision {number} of the policies"
            raise NotFound(f"{which}; list them to see which there are.")
        return found

    def _put(self, principal: Principal, source: PolicySource, restored: int | None = None) -> Published:
        newest = self._repository.get()
        digest = source_digest(source)
        if newest is not None and newest.digest == digest:
            return Published(newest, made=False)
        facts: dict[str, Any] = {
            "digest": digest,
            "modules": [module.path for module in source.modules[:_MOST_NAMED]],
            "count": len(source.modules),
            "replaces": None if newest is None else newest.digest,
        }
        if restored is not None:
            facts["restored"] = restored
        self._record(principal, POLICIES_PUBLISHED, f"policies:{digest[:16]}", {"policies": facts})
        made = self._repository.put(source, principal.agent, self._now())
        self._changed()
        return Published(made, made=True)


def policies_document(policies: StoredPolicies) -> dict[str, Any]:
    """A revision for people and programs; with modules and data where it has its source."""
    document: dict[str, Any] = {
        "number": policies.number,
        "digest": policies.digest,
        "author": policies.author,
        "published_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(policies.at // _SECOND)),
    }
    if policies.source is not None:
        document["name"] = policies.source.name
        document["modules"] = [{"path": module.path, "source": module.source} for module in policies.source.modules]
        document["data"] = dict(policies.source.data)
    return document
