"""Errors as HTTP: one table of codes, one form `{"error": text, "code": code}`."""

import json
import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from fulcrum_mcp.errors import FulcrumError

__all__ = ["STATUS", "BadRequest", "answer_error", "error_response", "unexpected"]

STATUS: Mapping[str, int] = {
    "invalid": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "unavailable": 503,
    "upstream_failed": 503,
}
_log = logging.getLogger("fulcrum.rest")


class BadRequest(Exception):
    """A request that cannot even be read: 400, 406, 413, 415."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """One error."""
    body = json.dumps({"error": message, "code": code})
    return Response(body, status, dict(headers or {}), "application/json")


def answer_error(error: FulcrumError, headers: Mapping[str, str] | None = None) -> Response:
    """An error of ours, with its own words."""
    status = STATUS.get(error.code, 500)
    more = {"retry-after": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return error_response(status, error.code, str(error), {**more, **(headers or {})})


def unexpected(error: Exception) -> Response:
    """Anything else: the client learns an id, the log the rest."""
    error_id = f"err_{secrets.token_hex(6)}"
    _log.error("%s", error_id, exc_info=error)
    return error_response(500, "internal", f"something went wrong here; the log knows more under {error_id}")
