"""`fulcrum up` in a process of its own, and every other command against it: over REST and on its data folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.service

POLICY = """\
package fulcrum.policies.mine

import rego.v1

allow if input.phase == "list"

allow if {
	input.phase == "call"
	input.tool.name != "delete"
}

deny contains {"code": "no_delete", "message": "nothing is deleted here"} if {
	input.phase == "call"
	input.tool.name == "delete"
}
"""
SERVER = """\
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    method = asked.get("method")
    if method == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "s", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("look", "delete")]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "done"}]}
    elif "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


CONFIGURED = ("--config", "fulcrum.toml", "--policies", "policies", "--data", "data")
UP = ("up", "--config", "mcp.json", *CONFIGURED, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Gateway:
    """A running `fulcrum up`, what it says, and commands that ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        (folder / "policies").mkdir()
        (folder / "policies" / "mine.rego").write_text(POLICY)
        (folder / "server.py").write_text(SERVER)
        broken = {"command": sys.executable, "args": ["-c", "import sys; sys.exit('no licence')"]}
        good = {"command": sys.executable, "args": [str(folder / "server.py")]}
        (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"things": good, "broken": broken}}))
        (folder / "fulcrum.toml").write_text('[[budget]]\nname = "many"\nscope = "agent"\ncalls = 100\n')
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")}
        self._said = (folder / "said").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fulcrum_mcp.cli", *UP],
            cwd=folder,
            env=self.environ,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        self.wait_for("VS Code")
        found = re.search(r"at (http://\S+)", self.said())
        assert found is not None
        self.url = found[1]

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 30
        while words not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def run(self, *argv: str, key: str | None = "admin", given: str = "") -> Ran:
        environ = dict(self.environ)
        if key is not None:
            environ["FULCRUM_API_KEY_FILE"] = str(self.data / f"{key}.key")
        done = subprocess.run(
            [sys.executable, "-m", "fulcrum_mcp.cli", *argv],
            cwd=self.folder, env=environ, input=given, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def remote(self, *argv: str, key: str | None = "admin") -> Ran:
        return self.run(*argv, "--url", self.url, key=key)

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(20) == 0, self.said()
        finally:
            self.process.kill()
            self._said.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    found = Gateway(tmp_path_factory.mktemp("gateway"))
    look = {"name": "look", "arguments": {"at": "this"}}
    assert _wrapped(found, look).count("\n") == 2
    assert "Denied by policy mine (no_delete): nothing is deleted here." in _wrapped(
        found, {"name": "delete", "arguments": {}}
    )
    yield found
    found.close()


def _wrapped(gateway: Gateway, call: dict[str, Any]) -> str:
    """One call through `fulcrum wrap`, which ends after it."""
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    ran = gateway.run(
        "wrap", *CONFIGURED, "--name", "things", "--", sys.executable, "server.py",
        given="".join(json.dumps(message) + "\n" for message in messages),
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return ran.out


HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "me", "version": "1"}}


def records(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def test_up_says_what_it_found_and_shows_no_key(gateway: Gateway) -> None:
    said = gateway.said()
    assert "✔ things  2 tools" in said
    assert "✘ broken  its process exited with code 1; last words: no licence" in said
    assert "2 upstreams (1 of them failed; the rest works), 2 tools" in said
    assert "policies: mine" in said
    assert "1 budget from the configuration" in said
    assert "flcrm_sk_" not in said


def test_a_query_gives_the_same_records_from_both_sides_byte_for_byte(gateway: Gateway) -> None:
    local = gateway.run("audit", "query", "--json", "--type", "all", "--tool", "things__*", "--data", "data")
    remote = gateway.remote("audit", "query", "--json", "--type", "all", "--tool", "things__*")
    assert local.out == remote.out
    assert [one["data"].get("effect") for one in records(remote)] == ["allow", None, "deny"]
    assert gateway.remote("audit", "query", "--effect", "deny").out.count("✘ denied") == 1
    assert gateway.remote("audit", "query", "--effect", "ok").out.count("↳ ok") == 1


def test_tail_begins_with_the_newest_calls_from_both_sides(gateway: Gateway) -> None:
    for ran in (gateway.remote("audit", "tail", "--no-follow", "-n", "1"),
                gateway.run("audit", "tail", "--no-follow", "-n", "1", "--data", "data")):  # fmt: skip
        assert ran.code == 0, ran.err
        assert "mine (no_delete): nothing is deleted here" in ran.out
        assert "✔ allowed" not in ran.out


def test_a_decision_is_explained_with_file_and_line(gateway: Gateway) -> None:
    (denied,) = records(gateway.remote("audit", "query", "--effect", "deny", "--json"))
    decision = denied["data"]["decision_id"]
    local = gateway.run("policy", "explain", decision, "--data", "data")
    assert local.code == 0, local.err
    assert re.search(r"policies/mine\.rego:12: mine\.deny: .*no_delete", local.out)
    assert '"name": "delete"' in local.out
    remote = gateway.remote("policy", "explain", decision, "--policies", "policies")
    assert "mine.deny (no_delete): nothing is deleted here" in remote.out
    assert '"name": "delete"' in remote.out
    absent = gateway.remote("policy", "explain", "dec_none")
    assert absent.code == 1
    assert "dec_none" in absent.err


def test_an_export_over_rest_verifies_and_a_changed_byte_does_not(gateway: Gateway) -> None:
    assert gateway.remote("audit", "export", "-o", "trail.jsonl").code == 0
    whole = gateway.run("audit", "verify", "trail.jsonl", "--public-key", "data/keys/audit.pub")
    assert whole.code == 0, whole.out
    assert whole.out.endswith(": whole\n")
    trail = gateway.folder / "trail.jsonl"
    trail.write_bytes(trail.read_bytes().replace(b'"effect":"deny"', b'"effect":"dena"'))
    broken = gateway.run("audit", "verify", "trail.jsonl", "--public-key", "data/keys/audit.pub")
    assert broken.code == 1
    assert re.fullmatch(r"broken at chain \S+ seq \d+: hash differs\n", broken.out)


def test_every_change_of_keys_and_budgets_is_in_the_trail(gateway: Gateway) -> None:
    for command in (gateway.remote, lambda *argv: gateway.run(*argv, "--data", "data")):
        key = json.loads(command("keys", "create", "somebody", "--json").out)["key"]["id"]
        assert command("keys", "revoke", key).code == 0
        budget = json.loads(command("budget", "create", "--scope", "key", "--calls", "3", "--json").out)["budget"]["id"]
        assert command("budget", "delete", budget).code == 0
        told = [
            (one["type"].removeprefix("dev.fulcrum."), one["data"]["by"]["agent"])
            for one in records(gateway.run("audit", "query", "--type", "all", "--json", "--data", "data"))
            if one["subject"] in {key, budget}
        ]
        who = "admin" if command == gateway.remote else "operator"
        assert told == [
            ("auth.key_created", who), ("auth.key_revoked", who), ("budget.created", who), ("budget.deleted", who),
        ]  # fmt: skip
    assert gateway.remote("audit", "export", "-o", "after.jsonl").code == 0
    assert gateway.run("audit", "verify", "after.jsonl", "--public-key", "data/keys/audit.pub").code == 0


def test_lists_are_the_same_from_both_sides(gateway: Gateway) -> None:
    assert gateway.remote("keys", "list").out == gateway.run("keys", "list", "--data", "data").out
    both = (
        gateway.remote("budget", "list").out,
        gateway.run("budget", "list", "--data", "data", "--config", "fulcrum.toml").out,
    )
    assert all("many  [agent, per day, hard]" in out and "things" in out for out in both)
    servers = gateway.remote("servers", "list").out
    assert "things  stdio" in servers
    assert "mcp.json:1" in servers


def test_a_key_without_the_scope_or_no_key_is_exit_code_2(gateway: Gateway) -> None:
    for command in (("keys", "list"), ("audit", "query"), ("audit", "export", "-o", "-"), ("budget", "list")):
        weak = gateway.remote(*command, key="client")
        assert (weak.code, weak.out) == (2, "")
        assert "needs the scope" in weak.err
        assert gateway.remote(*command, key=None).code == 2


def test_policies_that_change_are_told_and_broken_ones_are_not_taken(gateway: Gateway) -> None:
    mine = gateway.folder / "policies" / "mine.rego"
    mine.write_text(POLICY + "\nallow if startwith(input.method, `x`)\n")
    gateway.wait_for("policies refused, the old ones stay:")
    gateway.wait_for("did you mean startswith?")
    mine.write_text(POLICY + "\n# better\n")
    gateway.wait_for("policies live: mine")


def test_a_reader_that_has_seen_enough_is_no_fault(gateway: Gateway) -> None:
    command = [sys.executable, "-m", "fulcrum_mcp.cli", "audit", "query", "--type", "all", "--data", "data"]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command, cwd=gateway.folder, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


def test_tail_follows_until_it_is_interrupted(gateway: Gateway) -> None:
    command = [sys.executable, "-m", "fulcrum_mcp.cli", "audit", "tail", "-n", "0", "--data", "data"]
    with subprocess.Popen(command, cwd=gateway.folder, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        line = ""
        deadline = time.monotonic() + 30
        while "auth.key_created" not in line:
            assert time.monotonic() < deadline
            assert gateway.remote("keys", "create", "late").code == 0
            os.set_blocking(tail.stdout.fileno(), False)
            line = tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 0
