import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from fulcrum_mcp.cli.greeting import say_change, say_clients, say_governed, watch

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Listed:
    name: str
    ready: bool = False
    failure: str | None = None
    tools: Mapping[str, object] = field(default_factory=dict[str, object])


async def test_each_upstream_is_told_once_then_the_summary_then_changes(capsys: pytest.CaptureFixture[str]) -> None:
    far = Listed("far", failure="upstream far at http://far/mcp: connection refused; start it")
    good = Listed("files", ready=True, tools={"a": 1, "b": 2})
    bad = Listed("x", failure='upstream "x": its process exited with code 1; last words: \x1b[31mno')
    done = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(watch, [good, bad, far], done.set)
        with anyio.fail_after(5):
            await done.wait()
        assert capsys.readouterr().out == (
            "  ✔ files  2 tools\n  ✘ x      its process exited with code 1; last words: ?[31mno\n"
            "  ✘ far    http://far/mcp: connection refused; start it\n"
        )
        bad.failure, bad.ready, bad.tools = None, True, {"c": 1}
        said = ""
        with anyio.fail_after(5):
            while "✔ x  1 tool" not in said:
                await anyio.sleep(0.02)
                said += capsys.readouterr().out
        assert said.count("\n") == 1
        group.cancel_scope.cancel()


async def test_a_change_is_told_with_the_time_and_nothing_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    say_change("policies refused, the old ones stay:\nmine.rego:3:1: error: \x1b[2J")
    first, second = capsys.readouterr().out.splitlines()
    assert first[8:] == "  policies refused, the old ones stay:"
    assert second.strip() == "mine.rego:3:1: error: ?[2J"


async def test_one_of_several_gateways_says_what_calls_come_upon(capsys: pytest.CaptureFixture[str]) -> None:
    say_governed(("files", "git"), ("mine", "other"), 1, 2)
    assert capsys.readouterr().out == (
        "  2 upstreams: files, git\n  policies: mine, other\n  1 budget from the configuration\n"
        "  2 calls of a process that died: recorded as outcome_unknown\n"
    )


async def test_without_upstreams_and_policies_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    say_governed((), None, 0, 0)
    first, second = capsys.readouterr().out.splitlines()
    assert "nothing to govern yet" in first
    assert "no policies: every call is denied; fulcrum policy publish" in second
    say_governed(("files",), (), 0, 0)
    assert capsys.readouterr().out.splitlines()[1] == "  policies: those of OPA"


async def test_a_key_is_in_no_text_that_is_not_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say_clients("http://127.0.0.1:1", "flcrm_sk_secret", Path("/data/client.key"), anonymous=False)
    said = capsys.readouterr().out
    assert "flcrm_sk_secret" not in said
    assert '--header "Authorization: Bearer $(cat /data/client.key)"' in said
    assert said.count("Bearer KEY") == 3


async def test_each_client_gets_json_of_its_own_and_no_header_where_none_is_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_clients("http://127.0.0.1:1", "k", Path("/data/client.key"), anonymous=True)
    said = capsys.readouterr().out
    entries = [json.loads(line) for line in said.splitlines() if line.startswith("  {")]
    assert [next(iter(entry)) for entry in entries] == ["mcpServers", "mcpServers", "servers"]
    assert "eader" not in said


async def test_a_revoked_key_is_said_instead_of_snippets(capsys: pytest.CaptureFixture[str]) -> None:
    say_clients("http://127.0.0.1:1", None, Path("/data/client.key"), anonymous=False)
    said = capsys.readouterr().out
    assert "fulcrum keys create NAME" in said
    assert "Claude" not in said
