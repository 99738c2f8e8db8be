"""Whatever is sent, the REST face answers as its OpenAPI document says, and never with a 5xx. OWASP MCP05, ASI02."""

import json
from typing import Any

import pytest
from conftest_rest import Rest, rest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fulcrum_mcp.api.rest.openapi import document

__all__ = ["rest"]

DOCUMENT = document()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(
        [
            "agent",
            "tool:a__b",
            "10/minute:3",
            "day",
            "hard",
            "1.5",
            "-1",
            "9" * 30,
            "1h",
            "2026-01-01T00:00:00Z",
            "*",
            "\x00",
            "%00",
        ]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def fields(operation: dict[str, Any]) -> list[str]:
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    names = list(schema.get("properties", {})) + [one["name"] for one in operation.get("parameters", [])]
    return [*names, "x"]


def judge(answer: Any, operation: dict[str, Any]) -> None:
    assert answer.status_code < 500
    assert str(answer.status_code) in operation["responses"], answer.text
    if answer.status_code >= 400:
        body = answer.json()
        assert set(body) == {"error", "code"}
        assert isinstance(body["error"], str)
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_documented_operation_keeps_its_word(rest: Rest, method: str, path: str, operation: dict[str, Any]) -> None:
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        database=None,
    )
    @given(st.dictionaries(st.sampled_from(fields(operation)), VALUES, max_size=6), st.text(max_size=12))
    @example({"scope": "agent", "calls": 1}, "a")
    @example({"name": "a"}, "x" * 81)
    def law(given_fields: dict[str, Any], ident: str) -> None:
        named = path.replace("{id}", "".join(c for c in ident if c.isalnum() and c.isascii()) or "a")
        headers = {"authorization": "Bearer root"}
        if method == "POST":
            body = json.dumps(given_fields).encode()
            answer = rest.client.request(
                method, named, content=body, headers=headers | {"content-type": "application/json"}
            )
        else:
            query = {name: str(value).encode(errors="replace").decode() for name, value in given_fields.items()}
            answer = rest.client.request(method, named, params=query, headers=headers)
        judge(answer, operation)

    law()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(st.binary(max_size=60), st.sampled_from(["/api/v1/keys", "/api/v1/budgets"]))
def test_any_bytes_get_a_plain_answer(rest: Rest, body: bytes, path: str) -> None:
    headers = {"authorization": "Bearer root", "content-type": "application/json"}
    assert 400 <= rest.client.post(path, content=body, headers=headers).status_code < 500


def test_the_judge_catches_a_5xx_and_an_undocumented_answer(rest: Rest) -> None:
    answer = rest.client.get("/api/v1/keys", headers={"authorization": "Bearer root"})
    with pytest.raises(AssertionError):
        judge(answer, {"responses": {"201": {}}})
    answer.status_code = 500
    with pytest.raises(AssertionError):
        judge(answer, {"responses": {"500": {}}})


def test_every_route_of_the_face_is_documented(rest: Rest) -> None:
    routes = {
        getattr(route, "path", "")
        for route in getattr(rest.client.app, "routes", [])
        if getattr(route, "path", "").startswith("/api/v1/")
    }
    assert routes == set(DOCUMENT["paths"])
