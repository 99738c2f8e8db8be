"""Is it alive, is it ready: the two questions that supervisors ask, answered without a key and without secrets.

Anybody learns which part does not work; why, with the names of hosts, only who asks on this machine, under a name of
this machine (no page in a browser) and not through a proxy. The log says it too.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fulcrum_mcp.api.credentials import credentials_of
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.errors import Unauthenticated

__all__ = ["Part", "health_routes"]


_HERE = OriginPolicy("127.0.0.1")


class Part(NamedTuple):
    """One part of the gateway: whether it works, and in a few words why not."""

    ready: bool
    detail: str = ""


def health_routes(parts: Callable[[], Mapping[str, Part]]) -> list[Route]:
    """`/healthz` (the process answers) and `/readyz` (200 when every part works, else 503; each is named).

    `parts` is called for each question, on the event loop: it must only look at what is known.
    """

    async def healthz(_request: Request) -> Response:
        return _answer(200, {"status": "ok"})

    async def readyz(request: Request) -> Response:
        found, near = parts(), _is_near(request)
        ready = all(part.ready for part in found.values())
        listed = {
            name: {"ready": part.ready} | ({"detail": part.detail} if near and part.detail else {})
            for name, part in found.items()
        }
        return _answer(200 if ready else 503, {"status": "ready" if ready else "not ready", "parts": listed})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _is_near(request: Request) -> bool:
    hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
    if len(hosts) != 1 or len(origins) > 1 or _HERE.refusal(hosts[0], origins[0] if origins else None) is not None:
        return False
    try:
        asking = credentials_of(request.headers.raw, request.scope.get("client"))
    except Unauthenticated:
        return False
    return asking.loopback and not asking.forwarded


def _answer(status: int, document: Mapping[str, object]) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(json.dumps(document), status, headers, "application/json")
