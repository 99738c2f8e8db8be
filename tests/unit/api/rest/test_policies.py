"""`/api/v1/policies`."""

from typing import Any

import pytest
from conftest_rest import Rest

ROOT = {"authorization": "Bearer root"}
OTHER = {"authorization": "Bearer other"}
READER = {"authorization": "Bearer reader"}
POLICY = {"files": {"p.rego": "package fulcrum.policies.p\n\nallow := true\n"}}


def test_policies_are_published_shown_and_put_back(rest: Rest) -> None:
    made = rest.client.post("/api/v1/policies", json=POLICY, headers=ROOT)
    assert made.status_code == 201, made.text
    assert set(made.json()["policies"]) == {"number", "digest", "author", "published_at"}
    assert rest.client.post("/api/v1/policies", json=POLICY, headers=ROOT).status_code == 200
    other = {"files": {"q.rego": "package fulcrum.policies.q\n\nallow := true\n"}, "name": "other"}
    assert rest.client.post("/api/v1/policies", json=other, headers=ROOT).json()["policies"]["number"] == 2
    assert rest.client.post("/api/v1/policies/1/restore", headers=ROOT).status_code == 201
    listed = rest.client.get("/api/v1/policies?limit=2", headers=ROOT).json()
    assert [each["number"] for each in listed["policies"]] == [3, 2]
    assert rest.client.get("/api/v1/policies/current", headers=ROOT).json()["policies"]["number"] == 3
    shown = rest.client.get("/api/v1/policies/2", headers=ROOT).json()["policies"]
    assert [module["path"] for module in shown["modules"]] == ["q.rego"]


def test_policies_that_cannot_be_used_are_refused_with_their_faults(rest: Rest) -> None:
    broken = {"files": {"p.rego": "package fulcrum.policies.p\n\nallow if {"}}
    refused = rest.client.post("/api/v1/policies", json=broken, headers=ROOT)
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("p.rego:3")
    bodies: list[dict[str, Any]] = [{"files": {}}, {"files": {"../p.rego": "x"}}, {"files": {"p.rego": 5}}, {}]
    for body in [*bodies, {"files": ["p.rego"]}]:
        assert rest.client.post("/api/v1/policies", json=body, headers=ROOT).status_code == 422
    assert rest.client.get("/api/v1/policies", headers=ROOT).json() == {"policies": [], "overruled": None}
    large = {"files": {"p.rego": "#" * (9 << 20)}}
    assert rest.client.post("/api/v1/policies", json=large, headers=ROOT).status_code == 413


@pytest.mark.parametrize("number", ["0", "9", "x", "-1", "1.5", "9" * 40])
def test_revisions_that_are_not_there_are_not_found(rest: Rest, number: str) -> None:
    assert rest.client.get(f"/api/v1/policies/{number}", headers=ROOT).status_code == 404
    assert rest.client.post(f"/api/v1/policies/{number}/restore", headers=ROOT).status_code == 404


@pytest.mark.parametrize("who", [OTHER, READER])
def test_another_tenant_neither_reads_nor_changes_what_judges_everybody(rest: Rest, who: dict[str, str]) -> None:
    assert rest.client.post("/api/v1/policies", json=POLICY, headers=who).status_code == 403
    assert rest.client.get("/api/v1/policies", headers=who).status_code == 403
    assert rest.client.get("/api/v1/policies/current", headers=who).status_code == 403
    assert rest.client.post("/api/v1/policies/1/restore", headers=who).status_code == 403
    assert rest.client.get("/api/v1/policies", headers=ROOT).json()["policies"] == []
