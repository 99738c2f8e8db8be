"""`/api/v1/budgets` and `/api/v1/servers`."""

from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.rest.body import read_object, read_query
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import answer, in_thread
from fulcrum_mcp.api.rest.keys import NoQuery
from fulcrum_mcp.control.budgets import budget_document
from fulcrum_mcp.control.servers import server_document
from fulcrum_mcp.core.call import Principal

__all__ = ["create_budget", "delete_budget", "list_budgets", "list_servers"]


async def create_budget(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """201; the fields are those of `[[budget]]` in `fulcrum.toml`."""
    fields = await read_object(request, deps.max_body)
    view = await in_thread(deps.budgets.create, principal, fields)
    return answer({"budget": budget_document(view)}, 201)


async def list_budgets(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """All budgets of the tenant, with what was used of each."""
    read_query(NoQuery, request)
    views = await in_thread(deps.budgets.list, principal)
    return answer({"budgets": [budget_document(view) for view in views]})


async def delete_budget(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """204."""
    await in_thread(deps.budgets.delete, principal, request.path_params["id"])
    return Response(status_code=204)


async def list_servers(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """The configured upstreams, without secrets."""
    read_query(NoQuery, request)
    views = await in_thread(deps.servers.list, principal)
    return answer({"servers": [server_document(view) for view in views]})
