"""`/api/v1/audit` and `/api/v1/decisions`: records leave as the bytes that were signed, never written anew."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fulcrum_mcp.api.rest.body import read_query
from fulcrum_mcp.api.rest.deps import RestDeps
from fulcrum_mcp.api.rest.door import in_thread
from fulcrum_mcp.api.rest.keys import NoQuery
from fulcrum_mcp.api.rest.when import moment
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.ports import AuditQuery

__all__ = ["AuditFilter", "export_audit", "get_decision", "query_audit"]

Text = Annotated[str, Field(min_length=1, max_length=512)]
Effect = Literal[
    "allow", "deny", "require_approval", "ok", "error", "timeout", "cancelled", "outcome_unknown", "withheld"
]
"""Of a decision; or the outcome of a call that ended."""
Row = Annotated[int, Field(ge=0, lt=2**63)]
_LINES_AT_ONCE = 256


class AuditFilter(BaseModel):
    """`tool` is a glob over `<server>__<tool>`; `since` and `until` are RFC 3339 or an age such as 90m."""

    model_config = ConfigDict(extra="forbid")

    tool: Text | None = None
    effect: Effect | None = None
    agent: Text | None = None
    type: Text | None = None
    call: Text | None = None
    decision: Text | None = None
    since: Text | None = None
    until: Text | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: Row | None = None
    before: Row | None = None


async def query_audit(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """Newest first, or oldest first with `after`; `next` is the row to go on from in the same direction."""
    wanted = read_query(AuditFilter, request)
    now = time.time_ns()
    query = AuditQuery(
        tenant=principal.tenant,
        tool=wanted.tool,
        effect=wanted.effect,
        agent=wanted.agent,
        type=wanted.type,
        call=wanted.call,
        decision=wanted.decision,
        since=None if wanted.since is None else moment(wanted.since, "since", now),
        until=None if wanted.until is None else moment(wanted.until, "until", now),
        limit=wanted.limit,
        after=wanted.after,
        before=wanted.before,
    )
    found = await in_thread(deps.audit.query, principal, query)
    onwards = found[-1].row if found and len(found) == wanted.limit else None
    if wanted.after is not None:
        onwards = found[-1].row if found else wanted.after
    tail = b"null" if onwards is None else str(onwards).encode()
    body = b'{"records":[' + b",".join(bytes(record.line) for record in found) + b'],"next":' + tail + b"}"
    return Response(body, media_type="application/json")


async def get_decision(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """One decision: its record, what was judged (redacted; null when erased), and how the call ended."""
    read_query(NoQuery, request)
    found = await in_thread(deps.audit.decision, principal, request.path_params["id"])
    inputs = found.inputs if found.inputs is not None else b"null"
    finished = b",".join(bytes(line) for line in found.finished)
    body = b'{"decided":' + bytes(found.decided) + b',"inputs":' + bytes(inputs) + b',"finished":[' + finished + b"]}"
    return Response(body, media_type="application/json")


async def export_audit(request: Request, deps: RestDeps, principal: Principal) -> Response:
    """The whole trail of the tenant as NDJSON, for `fulcrum audit verify`. Cut off: the manifest is missing."""
    read_query(NoQuery, request)
    thread = ThreadPoolExecutor(1, "audit-export")
    loop = asyncio.get_running_loop()
    try:
        lines: Iterator[bytes] = await loop.run_in_executor(thread, deps.audit.export, principal)
        first = await loop.run_in_executor(thread, _some, lines)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    headers = {"content-disposition": 'attachment; filename="trail.jsonl"'}
    return StreamingResponse(_stream(thread, lines, first), 200, headers, "application/x-ndjson")


def _some(lines: Iterator[bytes]) -> bytes:
    return b"".join(islice(lines, _LINES_AT_ONCE))


async def _stream(thread: ThreadPoolExecutor, lines: Iterator[bytes], piece: bytes) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    close = getattr(lines, "close", None)
    try:
        while piece:
            yield piece
            piece = await loop.run_in_executor(thread, _some, lines)
    finally:
        if close is not None:
            thread.submit(close)
        thread.shutdown(wait=False)
