"""`/api/v1/keys`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.rest.body import read_model, read_object, read_query
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import answer, in_thread
from fulcrum_mcp.control.keys import DEFAULT_SCOPES, key_document
from fulcrum_mcp.core.call import Principal

__all__ = ["KeyRequest", "NoQuery", "create_key", "list_keys", "revoke_key"]


class KeyRequest(BaseModel):
    """What a new key may do. `expires_in_seconds` absent: it does not end."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, Field(min_length=1, max_length=128)]
    agent: Annotated[StrictStr, Field(min_length=1, max_length=128)] | None = None
    roles: Annotated[list[StrictStr], Field(max_length=32)] = []
    scopes: Annotated[list[StrictStr], Field(max_length=32)] = list(DEFAULT_SCOPES)
    expires_in_seconds: Annotated[int, Field(strict=True, ge=1)] | None = None
    require_envelope: StrictBool = False


class NoQuery(BaseModel):
    """A route without parameters."""

    model_config = ConfigDict(extra="forbid")


async def create_key(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """201 with the key's text, this once."""
    wanted = read_model(KeyRequest, await read_object(request, deps.max_body))
    made = await in_thread(
        deps.keys.create,
        principal,
        name=wanted.name,
        agent=wanted.agent,
        roles=wanted.roles,
        scopes=wanted.scopes,
        expires_in=wanted.expires_in_seconds,
        require_envelope=wanted.require_envelope,
    )
    return answer({"key": key_document(made.key), "key_secret": made.text}, 201)


async def list_keys(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Newest first, revoked ones included."""
    read_query(NoQuery, request)
    keys = await in_thread(deps.keys.list, principal)
    return answer({"keys": [key_document(key) for key in keys]})


async def revoke_key(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Idempotent; answers the key as it now is."""
    key = await in_thread(deps.keys.revoke, principal, request.path_params["id"])
    return answer({"key": key_document(key)})
