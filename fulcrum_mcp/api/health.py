"""Is it alive, is it ready: the two questions that supervisors ask, answered without a key and without secrets."""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["Part", "health_routes"]


class Part(NamedTuple):
    """One part of the gateway: whether it works, and in a few words why not."""

    ready: bool
    detail: str = ""


def health_routes(parts: Callable[[], Mapping[str, Part]]) -> list[Route]:
    """`/healthz` (the process answers) and `/readyz` (200 when every part works, else 503; each is named).

    `parts` is called for each question, on the event loop: it must only look at what is known.
    """

    async def healthz(_request: Request) -> Response:
        return _answer(200, {"status": "ok"})

    async def readyz(_request: Request) -> Response:
        found = parts()
        ready = all(part.ready for part in found.values())
        listed = {
            name: {"ready": part.ready} | ({"detail": part.detail} if part.detail else {})
            for name, part in found.items()
        }
        return _answer(200 if ready else 503, {"status": "ready" if ready else "not ready", "parts": listed})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(status: int, document: Mapping[str, object]) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(json.dumps(document), status, headers, "application/json")
