"""`/api/v1/kill-switches`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.rest.body import read_model, read_object, read_query
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import answer, in_thread
from fulcrum_mcp.control.switches import switch_document
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import EVERYBODY
from fulcrum_mcp.errors import Invalid

__all__ = ["SwitchQuery", "SwitchRequest", "lift_switch", "list_switches", "throw_switch"]

Name = Annotated[StrictStr, Field(min_length=1, max_length=128)]


class SwitchRequest(BaseModel):
    """What to stop and why. `tenant`: whose calls, absent the caller's own; `everybody`: those of all tenants."""

    model_config = ConfigDict(extra="forbid")

    target: Annotated[StrictStr, Field(description="KIND:NAME, such as agent:billing-bot or tool:files__delete")]
    reason: Annotated[StrictStr, Field(min_length=1, max_length=500)]
    tenant: Name | None = None
    everybody: StrictBool = False


class SwitchQuery(BaseModel):
    """Whose kill switches; absent the caller's own, and everybody's."""

    model_config = ConfigDict(extra="forbid")

    tenant: Name | None = None


async def throw_switch(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """201, or 200 when it is stopped already; in force on this gateway when it answers."""
    wanted = read_model(SwitchRequest, await read_object(request, deps.max_body))
    if wanted.everybody and wanted.tenant is not None:
        raise Invalid("tenant and everybody: give one of them")
    tenant = EVERYBODY if wanted.everybody else wanted.tenant
    thrown = await in_thread(deps.switches.throw, principal, wanted.target, wanted.reason, tenant)
    document = {"kill_switch": switch_document(thrown.switch), "made": thrown.made}
    return answer(document, 201 if thrown.made else 200)


async def list_switches(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Newest first, then everybody's."""
    tenant = read_query(SwitchQuery, request).tenant
    if tenant is None:
        found = await in_thread(deps.switches.list, principal)
    else:
        found = await in_thread(deps.switches.list_of, principal, tenant)
    return answer({"kill_switches": [switch_document(switch) for switch in found]})


async def lift_switch(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """The switch that was lifted."""
    tenant = read_query(SwitchQuery, request).tenant
    lifted = await in_thread(deps.switches.lift, principal, request.path_params["id"], tenant)
    return answer({"kill_switch": switch_document(lifted)})
