"""One script that any gateway must answer alike: what a client, an operator and an auditor see, without what differs.

What differs by nature is replaced: ids, times, MACs, hashes, signatures, durations, ports.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from governed_processes import META, VERSION
from installation_rig import ADMIN

__all__ = ["POLICIES", "SETTINGS", "plain", "play", "trail"]

POLICIES = {
    "tools.rego": """package fulcrum.policies.tools

import rego.v1

allow if input.principal.agent == "bot"

deny contains {"code": "forbidden_word", "message": sprintf("%s may not be marked", [input.arguments.text])} if {
	input.phase == "call"
	input.arguments.text in data.forbidden
}

warn contains "long" if {
	input.phase == "call"
	count(input.arguments.text) > 10
}

taint contains "seen" if {
	input.phase == "call"
	input.arguments.text == "stain"
}

deny contains {"code": "tainted", "message": "what was seen stays here"} if {
	input.phase == "call"
	input.arguments.text == "leave"
	"seen" in input.history.taints
}

deny contains {"code": "often", "message": sprintf("%d times", [input.history.calls.by_tool["marks__spare"]])} if {
	input.phase == "call"
	input.tool.name == "spare"
	input.history.calls.by_tool["marks__spare"] >= 2
}

warn contains sprintf("left %v", [input.budget.remaining]) if {
	input.phase == "call"
	input.tool.name == "paced"
}

redact contains {"pattern": "[0-9]{4}-[0-9]{4}", "with": "****"} if input.phase == "result"

cost := {"usd_micros": 250000} if input.phase == "call"
""",
    "data.json": json.dumps({"forbidden": ["virus"]}),
}
SETTINGS = """
[[budget]]
name = "dollar"
scope = "agent"
usd = 20.00
period = "infinite"

[[rate]]
scope = "tool:marks__tight"
limit = "2/week:2"
"""
_TEXTS = ("hello", "virus", "a rather long text", "1234-5678", "leave", "stain", "leave")
_CHANGING = re.compile(
    r"ks_[0-9a-f]{16}|flcrm_sk_[0-9a-f]{16}_[\w.]+|(?:dec|call|bud)_[0-9a-f][0-9a-f-]{7,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|hmac-sha256:[0-9a-f]+|[0-9a-f]{128}|[0-9a-f]{64}|\b[0-9a-f]{16}\b|\bw[a-z2-9]{7}\b|127\.0\.0\.1:\d+"
    r"|\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|\+00:00)"
)
_TIMES = re.compile(
    r'"(duration_us|created_at|at|window_start|resets_at|retry_after|revision|number|time|ttlMs)": ?-?\d+'
)
_RECORDS = re.compile(r'^\{"specversion"')


def play(url: str) -> Iterator[tuple[str, Any]]:
    """What is done, and what came of it."""
    made = _api(url, "POST", "/api/v1/keys", {"agent": "bot", "name": "bot", "scopes": ["tool:call"]})
    yield "make a key", _plain(made)
    key = json.loads(made[1])["key_secret"]
    for method, params in (("tools/list", {}), ("prompts/list", {}), ("tools/call", {"name": "none", "arguments": {}})):
        yield method, _plain(_rpc(url, key, method, params))
    for text in _TEXTS:
        yield f"mark {text}", _plain(_rpc(url, key, "tools/call", {"name": "mark", "arguments": {"text": text}}))
    for number in range(3):
        yield f"tight {number}", _plain(_rpc(url, key, "tools/call", {"name": "tight", "arguments": {"text": "x"}}))
    for number in range(4):
        yield f"spare {number}", _plain(_rpc(url, key, "tools/call", {"name": "spare", "arguments": {"text": "x"}}))
    for number in range(2):
        yield f"paced {number}", _plain(_rpc(url, key, "tools/call", {"name": "paced", "arguments": {"text": "x"}}))
    yield "without a key", _plain(_rpc(url, None, "tools/list", {}))
    yield "another agent's key", _plain(_rpc(url, ADMIN, "tools/call", {"name": "mark", "arguments": {"text": "x"}}))
    yield from _manage(url, key)
    yield "budgets", _plain(_api(url, "GET", "/api/v1/budgets"))


def _manage(url: str, key: str) -> Iterator[tuple[str, Any]]:
    limit = {"name": "few", "scope": "server:marks", "calls": 1, "period": "infinite", "action": "hard"}
    yield "make a budget", _plain(_api(url, "POST", "/api/v1/budgets", limit))
    yield "the same again", _plain(_api(url, "POST", "/api/v1/budgets", limit))
    for number in range(2):
        answer = _rpc(url, key, "tools/call", {"name": "mark", "arguments": {"text": f"few {number}"}})
        yield f"within the budget {number}", _plain(answer)
    thrown = _api(url, "POST", "/api/v1/kill-switches", {"target": "agent:bot", "reason": "drill"})
    yield "throw a switch", _plain(thrown)
    stopped = _rpc(url, key, "tools/call", {"name": "mark", "arguments": {"text": "stopped"}})
    yield "call while stopped", _plain(stopped)
    switch = json.loads(thrown[1])["kill_switch"]["id"]
    yield "take it back", _plain(_api(url, "DELETE", f"/api/v1/kill-switches/{switch}"))
    yield "a bad budget", _plain(_api(url, "POST", "/api/v1/budgets", {**limit, "scope": "planet"}))


def _settled(url: str) -> None:
    """Wait until no call holds anything: what comes next must not ride along with the end of what was before."""
    for _ in range(500):
        budgets = json.loads(_api(url, "GET", "/api/v1/budgets")[1])["budgets"]
        if not any(any(usage["reserved"].values()) for budget in budgets for usage in budget["usage"]):
            return
    raise AssertionError("a reservation stays open")


def _rpc(url: str, key: str | None, method: str, params: dict[str, Any]) -> tuple[int, str]:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
    headers = {"mcp-protocol-version": VERSION, "mcp-method": method}
    headers |= {"mcp-name": params["name"]} if "name" in params else {}
    answer = _send(f"{url}/servers/marks/mcp", "POST", message, key, headers)
    _settled(url)
    return answer


def _api(url: str, verb: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    return _send(url + path, verb, body, ADMIN, {})


def _send(
    url: str, verb: str, body: dict[str, Any] | None, key: str | None, headers: dict[str, str]
) -> tuple[int, str]:
    told = {"accept": "application/json, text/event-stream", "content-type": "application/json", **headers}
    told |= {} if key is None else {"x-api-key": key}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=told, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def _plain(answer: tuple[int, str]) -> tuple[int, str]:
    return answer[0], plain(answer[1])


def plain(text: str) -> str:
    """A text without what differs between two gateways by nature."""
    return _TIMES.sub(r'"\1":0', _CHANGING.sub("*", text))


def trail(lines: list[str]) -> list[str]:
    """The records of an export as they can be compared."""
    return [plain(line) for line in lines if _RECORDS.match(line)]
