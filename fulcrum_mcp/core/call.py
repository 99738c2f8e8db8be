"""What is known about one governed call when it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Call", "Context", "Phase", "Principal", "Tool"]

Phase = Literal["list", "call", "result"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. The tenant is bound to the credential and never read from a request body.

    `roles` are labels for policy; only `scopes` grant anything.
    """

    tenant: str
    agent: str
    key: str
    roles: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    on_behalf_of: Mapping[str, Any] | None = None
    require_envelope: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as its upstream describes it. `pin` is the digest of the whole descriptor."""

    name: str
    title: str | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pin: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a call comes from: the envelope it runs in and the client that speaks."""

    envelope: str | None = None
    workflow: str | None = None
    execution: str | None = None
    task: str | None = None
    client: str | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One tools/call, prompts/get or resources/read.

    `id` is a UUIDv7 with the prefix `call_`; `target` is the tool's or prompt's name, or the resource's URI, as the
    upstream knows it; `leg` counts the requests of one call that needs several (MRTR), from 0.
    """

    id: str
    principal: Principal
    method: str
    server: str
    target: str
    arguments: Mapping[str, Any] | None
    """None: the request says `null`."""
    context: Context
    tool: Tool | None = None
    leg: int = 0
    responses: Any = None
    """What the client answers to the upstream's questions (`inputResponses`), on legs after the first."""
