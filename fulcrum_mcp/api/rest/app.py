"""The REST face put together: routes, refusals for everything else, security headers on every answer."""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fulcrum_mcp.api.challenge import WELL_KNOWN, metadata_document
from fulcrum_mcp.api.rest.audit import export_audit, get_decision, query_audit
from fulcrum_mcp.api.rest.budgets import create_budget, delete_budget, list_budgets, list_servers
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import HEADERS, Endpoint, Handler, answer, guarded, refused_host
from fulcrum_mcp.api.rest.errors import error_response
from fulcrum_mcp.api.rest.keys import create_key, list_keys, revoke_key
from fulcrum_mcp.api.rest.metrics import get_metrics
from fulcrum_mcp.api.rest.policies import list_policies, publish_policies, restore_policies, show_policies
from fulcrum_mcp.api.rest.switches import lift_switch, list_switches, throw_switch
from fulcrum_mcp.errors import NotFound

__all__ = ["rest_app", "rest_routes"]

_ID = re.compile(r"[A-Za-z0-9_.-]{1,80}\Z")
_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_Receive = Callable[[], Awaitable[_Message]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def rest_routes(deps: RestDeps) -> list[BaseRoute]:
    """Every route of this face; absolute paths, so that they can stand beside others in one application."""

    def route(path: str, **handlers: Handler) -> Route:
        endpoints = {method: guarded(deps, _checked(handler)) for method, handler in handlers.items()}

        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await endpoints[method](request)

        return Route(path, endpoint, methods=list(endpoints))

    return [
        route("/api/v1/keys", GET=list_keys, POST=create_key),
        route("/api/v1/keys/{id}", DELETE=revoke_key),
        route("/api/v1/budgets", GET=list_budgets, POST=create_budget),
        route("/api/v1/budgets/{id}", DELETE=delete_budget),
        route("/api/v1/kill-switches", GET=list_switches, POST=throw_switch),
        route("/api/v1/kill-switches/{id}", DELETE=lift_switch),
        route("/api/v1/policies", GET=list_policies, POST=publish_policies),
        route("/api/v1/policies/{id}", GET=show_policies),
        route("/api/v1/policies/{id}/restore", POST=restore_policies),
        route("/api/v1/servers", GET=list_servers),
        route("/api/v1/audit", GET=query_audit),
        route("/api/v1/audit/export", GET=export_audit),
        route("/api/v1/decisions/{id}", GET=get_decision),
        route("/metrics", GET=get_metrics),
        Route("/api/openapi.json", _openapi(deps)),
        Route(WELL_KNOWN, _metadata(deps)),
        Route(WELL_KNOWN + "/{path:path}", _metadata(deps)),
    ]


def rest_app(deps: RestDeps, more: list[BaseRoute] | None = None, *, api: bool = True) -> Starlette:
    """The application; `more` are routes of other small faces (health) that share its manners.

    Without `api` only what every gateway shows: metrics, and where tokens come from.
    """
    routes = [route for route in rest_routes(deps) if api or not getattr(route, "path", "").startswith("/api/")]
    return Starlette(
        routes=[*routes, *(more or [])],
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: _refusal},
    )


def _checked(handler: Handler) -> Handler:
    async def checked(request: Request, deps: RestDeps, principal: Any) -> Response:
        found = request.path_params.get("id")
        if found is not None and _ID.match(found) is None:
            raise NotFound("nothing has this id; list them to see their ids.")
        return await handler(request, deps, principal)

    return checked


def _openapi(deps: RestDeps) -> Endpoint:
    cached: list[bytes] = []

    async def openapi(request: Request) -> Response:
        if not cached:
            from fulcrum_mcp.api.rest.openapi import document  # noqa: PLC0415 (made when first asked for)

            cached.append(json.dumps(document()).encode())
        return refused_host(request, deps) or Response(cached[0], media_type="application/json")

    return openapi


def _metadata(deps: RestDeps) -> Endpoint:
    async def metadata(request: Request) -> Response:
        refused = refused_host(request, deps)
        if refused is not None:
            return refused
        if deps.oauth is None:
            return error_response(404, "not_found", "no authorization server is configured; use an API key.")
        return answer(metadata_document(deps.oauth.resource, deps.oauth.issuer, deps.oauth.scopes))

    return metadata


async def _refusal(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    status = exc.status_code
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid")
    said = {404: "no such path; /api/openapi.json lists all.", 405: "this path does not know this method."}
    return error_response(status, code, said.get(status, HTTPStatus(status).phrase), exc.headers)


class _SecurityHeaders:
    """Pure ASGI, so that streams stay streams."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = dict(HEADERS)
                if scope.get("scheme") == "https":
                    extra["strict-transport-security"] = "max-age=31536000"
                added = [
                    (name.encode(), value.encode()) for name, value in extra.items() if name.encode() not in present
                ]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, with_headers)
