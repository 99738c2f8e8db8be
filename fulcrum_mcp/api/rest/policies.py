"""`/api/v1/policies`: the set that all gateways judge by which were given none of their own."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from fulcrum_mcp.api.rest.body import read_model, read_object, read_query
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import answer, in_thread
from fulcrum_mcp.api.rest.keys import NoQuery
from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.policies import MOST_LISTED, Published, policies_document
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import NotFound

__all__ = [
    "PoliciesRequest",
    "RevisionsQuery",
    "list_policies",
    "publish_policies",
    "restore_policies",
    "show_policies",
]

_NEWEST = "current"
_MOST_DIGITS = 12


class PoliciesRequest(BaseModel):
    """A policy folder: relative path -> text, tests (`*_test.rego`, `cases/*.yaml`) and data documents included."""

    model_config = ConfigDict(extra="forbid")

    files: Annotated[dict[str, StrictStr], Field(min_length=1, max_length=500)]
    name: Annotated[StrictStr, Field(max_length=128)] = "published"


class RevisionsQuery(BaseModel):
    """How many revisions."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MOST_LISTED)] = MOST_LISTED


async def publish_policies(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """201, or 200 when the newest revision is the same; 422 with every fault when the set is not admitted."""
    require(principal, "policy:write")  # before so large a body is read
    wanted = read_model(PoliciesRequest, await read_object(request, deps.max_policies))
    published = await in_thread(deps.policies.publish, principal, wanted.name, wanted.files)
    return _published(published, deps)


async def restore_policies(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """As `publish_policies`, with the set of an older revision."""
    read_query(NoQuery, request)
    number = _number(request.path_params["id"])
    published = await in_thread(deps.policies.restore, principal, number)
    return _published(published, deps)


async def list_policies(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Revisions, newest first, without their sources."""
    limit = read_query(RevisionsQuery, request).limit
    found = await in_thread(deps.policies.list, principal, limit)
    return answer({"policies": [policies_document(each) for each in found], "overruled": deps.policies.overruled()})


async def show_policies(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """One revision with modules and data; `current` is the newest."""
    read_query(NoQuery, request)
    named = request.path_params["id"]
    found = await in_thread(deps.policies.show, principal, None if named == _NEWEST else _number(named))
    return answer({"policies": policies_document(found)})


def _published(published: Published, deps: RestDeps) -> Response:
    document: dict[str, Any] = policies_document(published.policies)
    for name in ("modules", "data", "name"):
        document.pop(name, None)
    return answer(
        {"policies": document, "made": published.made, "overruled": deps.policies.overruled()},
        201 if published.made else 200,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise NotFound(f"no revision {text:.80} of the policies; list them to see which there are.")
    return int(text)
