"""The OpenAPI 3.1 document of the REST face, made from the models that read the requests."""

from typing import Any

from pydantic import BaseModel

from fulcrum_mcp import __version__
from fulcrum_mcp.api.rest.audit import AuditFilter
from fulcrum_mcp.api.rest.keys import KeyRequest
from fulcrum_mcp.api.rest.policies import PoliciesRequest, RevisionsQuery
from fulcrum_mcp.api.rest.switches import SwitchQuery, SwitchRequest

__all__ = ["document"]

_ID = r"^[A-Za-z0-9_.-]{1,80}$"
_BUDGET: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["scope"],
    "properties": {
        "scope": {"type": "string", "description": "KIND[:ID], such as agent or tool:files__write_file"},
        "name": {"type": ["string", "null"], "maxLength": 128},
        "calls": {"type": ["integer", "null"], "minimum": 0},
        "usd": {"type": ["number", "string", "null"]},
        "usd_micros": {"type": ["integer", "null"], "minimum": 0},
        "input_tokens": {"type": ["integer", "null"], "minimum": 0},
        "output_tokens": {"type": ["integer", "null"], "minimum": 0},
        "tokens": {"type": ["integer", "null"], "minimum": 0},
        "bytes": {"type": ["integer", "null"], "minimum": 0},
        "seconds": {"type": ["integer", "null"], "minimum": 0},
        "rate": {"type": ["string", "null"], "description": "N/PERIOD[:BURST], such as 10/minute:3"},
        "period": {"type": ["string", "integer", "null"]},
        "action": {"enum": ["warn", "soft", "hard", None]},
        "thresholds": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 1, "maximum": 1000}},
        "timezone": {"type": ["string", "null"]},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _object(*names: str) -> dict[str, Any]:
    return {"type": "object", "required": list(names)}


def _operation(
    summary: str, good: int, answer: dict[str, Any] | None, bad: tuple[int, ...], **more: Any
) -> dict[str, Any]:
    responses: dict[str, Any] = {str(good): {"description": "Done"} | ({"content": answer} if answer else {})}
    for status in sorted({401, 403, 503, *bad}):
        responses[str(status)] = {"description": "Refused", "content": _json({"$ref": "#/components/schemas/Error"})}
    return {"summary": summary, "responses": responses, **more}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _json(schema)}}


def _query(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return {"parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]}


def _path(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": _ID}}
    return {"parameters": [parameter], method: operation}


def _switches(written: tuple[int, ...]) -> dict[str, Any]:
    thrown = _json(_object("kill_switch", "made"))
    lift = _operation("Lift a kill switch", 200, _json(_object("kill_switch")), (404, 422), **_query(SwitchQuery))
    return {
        "/api/v1/kill-switches": {
            "get": _operation(
                "List kill switches", 200, _json(_object("kill_switches")), (422,), **_query(SwitchQuery)
            ),
            "post": _also(
                _operation("Stop calls", 201, thrown, written, **_body(SwitchRequest.model_json_schema())), thrown
            ),
        },
        "/api/v1/kill-switches/{id}": _path("delete", lift),
    }


def _policies(written: tuple[int, ...]) -> dict[str, Any]:
    published = _json(_object("policies", "made", "overruled"))
    listed = _json(_object("policies", "overruled"))
    body = _body(PoliciesRequest.model_json_schema())
    restore = _also(_operation("Put an older revision back", 201, published, (404, 422)), published)
    return {
        "/api/v1/policies": {
            "get": _operation("List revisions of the policies", 200, listed, (422,), **_query(RevisionsQuery)),
            "post": _also(_operation("Publish policies", 201, published, written, **body), published),
        },
        "/api/v1/policies/{id}": _path("get", _operation("One revision", 200, _json(_object("policies")), (404, 422))),
        "/api/v1/policies/{id}/restore": _path("post", restore),
    }


def _also(operation: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The same, with 200 where it was so already."""
    operation["responses"]["200"] = {"description": "It was so already", "content": answer}
    return operation


def document() -> dict[str, Any]:
    """The whole document."""
    written = (400, 409, 413, 415, 422)
    lines = {"application/x-ndjson": {"schema": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fulcrum",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": {
            "/api/v1/keys": {
                "get": _operation("List keys", 200, _json(_object("keys")), (422,)),
                "post": _operation(
                    "Make a key",
                    201,
                    _json(_object("key", "key_secret")),
                    written,
                    **_body(KeyRequest.model_json_schema()),
                ),
            },
            "/api/v1/keys/{id}": _path("delete", _operation("Revoke a key", 200, _json(_object("key")), (404,))),
            "/api/v1/budgets": {
                "get": _operation("List budgets with their usage", 200, _json(_object("budgets")), (422,)),
                "post": _operation("Make a budget", 201, _json(_object("budget")), written, **_body(_BUDGET)),
            },
            "/api/v1/budgets/{id}": _path("delete", _operation("Delete a budget", 204, None, (404, 409))),
            **_switches(written),
            **_policies(written),
            "/api/v1/servers": {"get": _operation("List upstreams", 200, _json(_object("servers")), (422,))},
            "/api/v1/audit": {
                "get": _operation(
                    "Query records", 200, _json(_object("records", "next")), (422,), **_query(AuditFilter)
                )
            },
            "/api/v1/audit/export": {"get": _operation("Export the trail", 200, lines, (422,))},
            "/api/v1/decisions/{id}": _path(
                "get", _operation("One decision", 200, _json(_object("decided", "inputs", "finished")), (404, 422))
            ),
        },
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
