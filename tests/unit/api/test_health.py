"""Who learns why a part does not work."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fulcrum_mcp.api.health import Part, health_routes

WHY = "postgres db.internal:5432: cannot be reached"


def told(client: str = "127.0.0.1", host: str = "127.0.0.1:8080", **headers: str) -> Any:
    app = Starlette(routes=health_routes(lambda: {"store": Part(ready=False, detail=WHY)}))
    answer = TestClient(app, client=(client, 4711)).get("/readyz", headers={"host": host, **headers})
    assert answer.status_code == 503
    return json.loads(answer.content)["parts"]["store"]


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:80"])
def test_who_asks_on_this_machine_learns_why(client: str, host: str) -> None:
    assert told(client, host) == {"ready": False, "detail": WHY}


@pytest.mark.parametrize("client", ["10.0.0.7", "2001:db8::1", ""])
def test_others_learn_only_which_part(client: str) -> None:
    assert told(client) == {"ready": False}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "localhost.evil.example"},
        {"origin": "https://evil.example"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
    ],
)
def test_neither_a_page_nor_a_proxy_learns_why(headers: dict[str, str]) -> None:
    assert told(**headers) == {"ready": False}
