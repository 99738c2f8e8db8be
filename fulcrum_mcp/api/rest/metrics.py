"""`/metrics` beside the API: for keys of the operator's tenant with the scope `admin`, and for `platform`."""

from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.metrics import CONTENT_TYPE, metrics_text
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.control.access import require_of_operator
from fulcrum_mcp.core.call import Principal

__all__ = ["get_metrics"]


async def get_metrics(_request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Every figure, of all workers of this host."""
    require_of_operator(principal, "admin", deps.operator)
    return Response(metrics_text(await deps.metrics()), media_type=CONTENT_TYPE)
