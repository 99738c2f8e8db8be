"""The door of every REST route: Host and Origin, then who, then the handler; whatever happens becomes one answer."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fulcrum_mcp.api.challenge import challenge
from fulcrum_mcp.api.credentials import credentials_of
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.errors import BadRequest, answer_error, error_response, unexpected
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import FulcrumError, Unauthenticated

__all__ = ["HEADERS", "Endpoint", "Handler", "answer", "guarded", "in_thread", "refused_host"]

T = TypeVar("T")
Handler = Callable[[Request, RestDeps, Principal], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def answer(document: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(document), status, media_type="application/json")


async def in_thread(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a use case, which may touch the disk, off the event loop."""
    return await anyio.to_thread.run_sync(partial(work, *args, **kwargs))


def refused_host(request: Request, deps: RestDeps) -> Response | None:
    """An answer for a Host or Origin that is not ours."""
    hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
    why = "Host or Origin comes twice"
    if len(hosts) <= 1 and len(origins) <= 1:
        found = deps.refuses(hosts[0] if hosts else None, origins[0] if origins else None)
        if found is None:
            return None
        why = found
    return error_response(403, "forbidden", f"{why}.")


def guarded(deps: RestDeps, handler: Handler) -> Endpoint:
    """An endpoint that only somebody known reaches, and that never lets an exception out."""

    async def endpoint(request: Request) -> Response:
        refused = refused_host(request, deps)
        if refused is not None:
            return refused
        try:
            principal = await deps.identity.verify(credentials_of(request.headers.raw, request.scope.get("client")))
            return await handler(request, deps, principal)
        except Exception as exc:  # noqa: BLE001 (every fault becomes an answer, here and nowhere else)
            return _fault(exc, request, deps)

    return endpoint


def _fault(exc: Exception, request: Request, deps: RestDeps) -> Response:
    match exc:
        case BadRequest():
            return error_response(exc.status, exc.code, str(exc), {"connection": "close"})
        case Unauthenticated():
            return answer_error(exc, {"www-authenticate": _challenge(request, deps)})
        case FulcrumError():
            return answer_error(exc)
        case ClientDisconnect():
            return error_response(400, "malformed", "the body was cut off")
        case _:
            return unexpected(exc)


def _challenge(request: Request, deps: RestDeps) -> str:
    presented = "authorization" in request.headers or "x-api-key" in request.headers
    return challenge(deps.oauth.resource if deps.oauth is not None else None, presented=presented)
