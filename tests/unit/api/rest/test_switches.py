"""`/api/v1/kill-switches`."""

from typing import Any

import pytest
from conftest_rest import Rest

ROOT = {"authorization": "Bearer root"}
OTHER = {"authorization": "Bearer other"}
STOP = {"target": "agent:bot", "reason": "runs wild"}


def test_a_kill_switch_is_thrown_once_listed_and_lifted(rest: Rest) -> None:
    made = rest.client.post("/api/v1/kill-switches", json=STOP, headers=ROOT)
    assert made.status_code == 201
    switch = made.json()["kill_switch"]
    again = rest.client.post("/api/v1/kill-switches", json=STOP, headers=ROOT)
    assert (again.status_code, again.json()) == (200, {"kill_switch": switch, "made": False})
    assert rest.client.get("/api/v1/kill-switches", headers=ROOT).json() == {"kill_switches": [switch]}
    path = f"/api/v1/kill-switches/{switch['id']}"
    assert rest.client.delete(path, headers=OTHER).status_code == 404
    assert rest.client.delete(path, headers=ROOT).json() == {"kill_switch": switch}
    assert rest.client.delete(path, headers=ROOT).status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"target": "agent:bot"}, "reason"),
        ({"target": "bot", "reason": "x"}, "KIND:NAME"),
        ({**STOP, "tenant": "a", "everybody": True}, "one of them"),
        ({**STOP, "everybody": "yes"}, "everybody"),
        ({**STOP, "tenant": ""}, "tenant"),
        ({**STOP, "by": "somebody"}, "by: unknown"),
        ({"target": ["agent:bot"], "reason": "x"}, "target"),
    ],
)
def test_a_bad_kill_switch_names_the_field(rest: Rest, body: dict[str, Any], said: str) -> None:
    refused = rest.client.post("/api/v1/kill-switches", json=body, headers=ROOT)
    assert refused.status_code == 422
    assert said in refused.json()["error"]


def test_other_tenants_calls_need_platform(rest: Rest) -> None:
    for body in ({**STOP, "tenant": "default"}, {**STOP, "everybody": True}, {**STOP, "target": "tenant:default"}):
        assert rest.client.post("/api/v1/kill-switches", json=body, headers=OTHER).status_code == 403
    assert rest.client.get("/api/v1/kill-switches?tenant=default", headers=OTHER).status_code == 403
    theirs = rest.client.post("/api/v1/kill-switches", json={**STOP, "tenant": "other"}, headers=ROOT).json()
    everybodys = rest.client.post("/api/v1/kill-switches", json={**STOP, "everybody": True}, headers=ROOT).json()
    listed = rest.client.get("/api/v1/kill-switches", headers=OTHER).json()["kill_switches"]
    assert listed == [theirs["kill_switch"], everybodys["kill_switch"]]
    path = f"/api/v1/kill-switches/{theirs['kill_switch']['id']}"
    assert rest.client.delete(path, headers=ROOT).status_code == 404
    assert rest.client.delete(f"{path}?tenant=other", headers=ROOT).status_code == 200
    assert rest.client.get("/api/v1/kill-switches?nope=1", headers=ROOT).status_code == 422


def test_every_route_is_documented(rest: Rest) -> None:
    paths = rest.client.get("/api/openapi.json").json()["paths"]
    assert set(paths["/api/v1/kill-switches"]) == {"get", "post"}
    assert "delete" in paths["/api/v1/kill-switches/{id}"]
    assert set(paths["/api/v1/policies"]) == {"get", "post"}
    assert "get" in paths["/api/v1/policies/{id}"]
    assert "post" in paths["/api/v1/policies/{id}/restore"]
