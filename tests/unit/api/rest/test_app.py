import json
from typing import Any

import pytest
from conftest_rest import FILE_BUDGET, Rest

ROOT = {"authorization": "Bearer root"}
READER = {"authorization": "Bearer reader"}
OTHER = {"x-api-key": "other"}
ROUTES = [
    ("GET", "/api/v1/keys"),
    ("POST", "/api/v1/keys"),
    ("DELETE", "/api/v1/keys/x"),
    ("GET", "/api/v1/budgets"),
    ("POST", "/api/v1/budgets"),
    ("DELETE", "/api/v1/budgets/x"),
    ("GET", "/api/v1/kill-switches"),
    ("POST", "/api/v1/kill-switches"),
    ("DELETE", "/api/v1/kill-switches/x"),
    ("GET", "/api/v1/policies"),
    ("POST", "/api/v1/policies"),
    ("GET", "/api/v1/policies/current"),
    ("POST", "/api/v1/policies/1/restore"),
    ("GET", "/api/v1/servers"),
    ("GET", "/api/v1/audit"),
    ("GET", "/api/v1/audit/export"),
    ("GET", "/api/v1/decisions/dec_1"),
]
KEY = {"name": "ci", "scopes": ["tool:call"], "roles": ["reader"]}
BUDGET = {"name": "daily", "scope": "agent", "usd": 1, "period": "day"}


def make_key(rest: Rest, **fields: Any) -> dict[str, Any]:
    answer = rest.client.post("/api/v1/keys", json=KEY | fields, headers=ROOT)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(rest: Rest) -> None:
    made = make_key(rest)
    assert made["key_secret"].startswith(f"flcrm_sk_{made['key']['id']}_")
    listed = rest.client.get("/api/v1/keys", headers=ROOT)
    assert made["key_secret"] not in listed.text
    assert "digest" not in listed.text
    assert [key["name"] for key in listed.json()["keys"]] == ["ci"]
    path = f"/api/v1/keys/{made['key']['id']}"
    first = rest.client.delete(path, headers=ROOT).json()["key"]["revoked_at"]
    assert first
    assert rest.client.delete(path, headers=ROOT).json()["key"]["revoked_at"] == first


def test_what_belongs_to_another_tenant_is_not_found(rest: Rest) -> None:
    made = make_key(rest)
    budget = rest.client.post("/api/v1/budgets", json=BUDGET, headers=ROOT).json()["budget"]
    assert rest.client.delete(f"/api/v1/keys/{made['key']['id']}", headers=OTHER).status_code == 404
    assert rest.client.delete(f"/api/v1/budgets/{budget['id']}", headers=OTHER).status_code == 404
    assert rest.client.get("/api/v1/decisions/dec_1", headers=OTHER).status_code == 404
    assert rest.client.get("/api/v1/keys", headers=OTHER).json() == {"keys": []}
    assert rest.client.get("/api/v1/budgets", headers=OTHER).json() == {"budgets": []}


def test_a_tenant_in_the_body_is_refused(rest: Rest) -> None:
    for path, body in (("/api/v1/keys", KEY), ("/api/v1/budgets", BUDGET)):
        answer = rest.client.post(path, json=body | {"tenant": "other"}, headers=ROOT)
        assert answer.status_code == 422
        assert "tenant" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_a_key_and_its_scope(rest: Rest, method: str, path: str) -> None:
    nobody = rest.client.request(method, path)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    challenge = nobody.headers["www-authenticate"]
    assert 'resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp"' in challenge
    assert "invalid_token" not in challenge
    wrong = rest.client.request(method, path, headers={"x-api-key": "wrong"})
    assert (wrong.status_code, "invalid_token" in wrong.headers["www-authenticate"]) == (401, True)
    written = {"/api/v1/keys": KEY, "/api/v1/kill-switches": {"target": "agent:x", "reason": "x"}}
    body = written.get(path, BUDGET) if method == "POST" else None
    reader = rest.client.request(method, path, headers=READER, json=body)
    assert (reader.status_code, reader.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path"), [*ROUTES, ("GET", "/api/openapi.json"), ("GET", "/.well-known/oauth-protected-resource")]
)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "a/?x=127.0.0.1"},
        {"host": "127.0.0.1#/public"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_names_that_are_not_ours_are_not_answered(rest: Rest, method: str, path: str, headers: dict[str, str]) -> None:
    answer = rest.client.request(method, path, headers=ROOT | headers)
    assert answer.status_code == 403


def test_nobody_gives_away_a_scope_that_they_lack(rest: Rest) -> None:
    answer = rest.client.post("/api/v1/keys", json=KEY | {"scopes": ["platform"]}, headers=OTHER)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"name": "a", "name": "b"}', 400, "appears twice"),
        (b'{"name": NaN}', 400, "NaN"),
        (b'{"name": "\\ud800"}', 400, "not valid UTF-8"),
        (b'{"name": "\xff"}', 400, "not valid UTF-8"),
        (b"[" * 50_000, 400, "nested too deeply"),
        (b'{"name": ' + b"9" * 5_000 + b"}", 400, "cannot be read"),
        (b" " * 70_000, 413, "larger than"),
        (b"{}", 422, "name"),
        (b'{"name": ""}', 422, "name"),
        (b'{"name": "a\\u0000b"}', 422, "printable"),
        (b'{"name": "a", "scopes": ["tool:cal"]}', 422, 'Did you mean "tool:call"?'),
        (b'{"name": "a", "expires_in_seconds": 0}', 422, "expires_in_seconds"),
        (b'{"name": "a", "expires_in_seconds": 99999999999999999999}', 422, "expires_in"),
        (b'{"name": "a", "expires_in_seconds": true}', 422, "expires_in_seconds"),
        (b'{"name": "a", "nam": 1}', 422, "nam: unknown"),
    ],
)
def test_bad_bodies_are_told_what_is_wrong(rest: Rest, body: bytes, status: int, said: str) -> None:
    headers = ROOT | {"content-type": "application/json"}
    answer = rest.client.post("/api/v1/keys", content=body, headers=headers)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert isinstance(answer.json()["code"], str)


def test_other_media_types_are_refused(rest: Rest) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}):
        assert rest.client.post("/api/v1/keys", content=b"{}", headers=ROOT | headers).status_code == 415


def test_a_budget_is_made_listed_and_deleted(rest: Rest) -> None:
    made = rest.client.post("/api/v1/budgets", json=BUDGET, headers=ROOT)
    assert made.status_code == 201
    assert made.json()["budget"]["limits"] == {"usd_micros": 1_000_000}
    again = rest.client.post("/api/v1/budgets", json=BUDGET, headers=ROOT)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    listed = rest.client.get("/api/v1/budgets", headers=ROOT).json()["budgets"]
    assert [(budget["name"], budget["source"]) for budget in listed] == [("of the file", "file"), ("daily", "api")]
    (usage,) = listed[0]["usage"]
    assert (usage["bucket"], usage["left"], usage["per_hour"]["calls"]) == ("ana", {"calls": 5, "usd_micros": 5}, 4)
    path = f"/api/v1/budgets/{made.json()['budget']['id']}"
    assert rest.client.delete(path, headers=ROOT).status_code == 204
    assert rest.client.delete(path, headers=ROOT).status_code == 404


def test_budgets_of_the_file_are_changed_in_the_file(rest: Rest) -> None:
    assert rest.client.delete(f"/api/v1/budgets/{FILE_BUDGET.id}", headers=ROOT).status_code == 409
    taken = rest.client.post("/api/v1/budgets", json=BUDGET | {"name": FILE_BUDGET.name}, headers=ROOT)
    assert taken.status_code == 409


def test_a_bad_budget_names_the_field(rest: Rest) -> None:
    answer = rest.client.post("/api/v1/budgets", json=BUDGET | {"period": "dayly"}, headers=ROOT)
    assert answer.status_code == 422
    assert 'period "dayly" is not one of minute, hour' in answer.json()["error"]


def test_servers_show_names_not_values(rest: Rest) -> None:
    (server,) = rest.client.get("/api/v1/servers", headers=ROOT).json()["servers"]
    assert (server["target"], server["env"]) == ("npx ${TOKEN}", ["TOKEN"])


def test_records_leave_as_the_bytes_they_are(rest: Rest) -> None:
    answer = rest.client.get("/api/v1/audit", params={"tool": "files__*", "since": "1h", "limit": 1}, headers=ROOT)
    assert answer.content == b'{"records":[{"n":12345678901234567890123,"hash":"a"}],"next":7}'
    (asked,) = rest.trail.asked
    assert (asked.tenant, asked.tool, asked.limit) == ("default", "files__*", 1)
    assert asked.since is not None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "twice"),
        ("since=yesterday", "not a time"),
        ("since=99999-01-01", "not a time"),
        ("effect=maybe", "effect"),
        ("tenant=other", "tenant: unknown"),
        ("after=-1", "after"),
        ("tool=", "tool"),
    ],
)
def test_bad_queries_are_told_what_is_wrong(rest: Rest, query: str, said: str) -> None:
    answer = rest.client.get(f"/api/v1/audit?{query}", headers=ROOT)
    assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text


def test_a_decision_comes_with_its_end(rest: Rest) -> None:
    answer = rest.client.get("/api/v1/decisions/dec_1", headers=ROOT)
    assert answer.json() == {"decided": {"d": 1}, "inputs": None, "finished": [{"f": 1}]}
    assert rest.client.get("/api/v1/decisions/dec_2", headers=ROOT).status_code == 404


def test_the_trail_is_streamed_whole(rest: Rest) -> None:
    answer = rest.client.get("/api/v1/audit/export", headers=ROOT)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["line"] for line in answer.text.splitlines()] == list(range(1000))


def test_a_trail_that_breaks_off_is_not_passed_off_as_whole(rest: Rest) -> None:
    rest.trail.broken = True
    with pytest.raises(OSError, match="the disk is gone"):
        rest.client.get("/api/v1/audit/export", headers=ROOT)


def test_unknown_paths_methods_and_ids_have_answers_of_the_same_form(rest: Rest) -> None:
    for method, path, status in (
        ("GET", "/api/v1/nothing", 404),
        ("PATCH", "/api/v1/keys", 405),
        ("DELETE", "/api/v1/keys/%00", 404),
        ("DELETE", "/api/v1/keys/" + "x" * 100, 404),
        ("GET", "/api/v1/decisions/a%2fb", 404),
    ):
        answer = rest.client.request(method, path, headers=ROOT)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "code"})


def test_a_fault_of_ours_has_an_id_and_no_traceback(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(rest.deps.keys, "list", broken)
    answer = rest.client.get("/api/v1/keys", headers=ROOT)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["error"].rpartition(" ")[2] in caplog.text


def test_every_answer_carries_security_headers(rest: Rest) -> None:
    for path in ("/api/v1/keys", "/nothing", "/api/openapi.json"):
        headers = rest.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers
        assert "access-control-allow-origin" not in headers


def test_a_credential_sent_twice_is_refused(rest: Rest) -> None:
    answer = rest.client.get("/api/v1/keys", headers=[("authorization", "Bearer root")] * 2)
    assert answer.status_code == 401


def test_metadata_says_where_tokens_come_from(rest: Rest) -> None:
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        found = rest.client.get(path).json()
        assert found["resource"] == "https://gw.example/mcp"
        assert found["authorization_servers"] == ["https://issuer.example"]


def test_readiness_names_each_part(rest: Rest) -> None:
    assert rest.client.get("/healthz").json() == {"status": "ok"}
    assert rest.client.get("/readyz").status_code == 200
    rest.parts["store"] = rest.parts["store"]._replace(ready=False, detail="disk full")
    answer = rest.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {"store": {"ready": False}}


def test_what_belongs_to_the_whole_process_is_not_for_an_admin_of_another_tenant(rest: Rest) -> None:
    for path in ("/api/v1/servers", "/metrics", "/api/v1/policies"):
        assert rest.client.get(path, headers={"authorization": "Bearer other"}).status_code == 403
        assert rest.client.get(path, headers=ROOT).status_code == 200
