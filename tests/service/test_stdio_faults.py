"""Servers that lie, crash, hang and flood: the client gets a message it can use, and no process stays behind."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from peers.stdio_client import SCRIPT, Client, config, read, upstream

from fulcrum_adapters.upstream.stdio import StdioConfig, StdioUpstream
from fulcrum_mcp.errors import UpstreamFailed

pytestmark = [pytest.mark.anyio, pytest.mark.service]

LEGACY = "2025-11-25"
ERAS = pytest.mark.parametrize("version", [LEGACY, "2026-07-28"])


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110  # what other processes do has no event here
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descriptors_here() -> set[Path]:
    return set(Path("/dev/fd").iterdir())


async def connected(to: Any, version: str) -> Client:
    client = Client(to, version)
    if version == LEGACY:
        await read(await client.initialize())
    return client


@ERAS
async def test_garbage_between_messages_is_skipped_and_told_as_a_warning(version: str) -> None:
    async with upstream() as to:
        client = await connected(to, version)
        (answer,) = await read(await client.call("garbage"))
        assert answer["result"] == {}
        with pytest.raises(UpstreamFailed, match="4 lines on stdout were not JSON-RPC"):
            await read(await client.call("crash"))


@ERAS
@pytest.mark.parametrize("name", ["halves", "batch"])
async def test_answer_in_pieces_or_in_a_batch_arrives_whole(version: str, name: str) -> None:
    async with upstream() as to:
        client = await connected(to, version)
        (answer,) = await read(await client.call(name, {"a": "é" * 50}))
        assert answer["result"] == {"echo": {"a": "é" * 50}}


@ERAS
async def test_answer_of_megabytes_passes_and_one_beyond_the_limit_ends_the_process(version: str) -> None:
    async with upstream(line_limit=3_000_000) as to:
        client = await connected(to, version)
        (answer,) = await read(await client.call("huge", {"size": 2_900_000}))
        assert len(answer["result"]["blob"]) == 2_900_000
        with pytest.raises(UpstreamFailed, match="a line of more than 3000000 bytes") as failure:
            await read(await client.call("huge", {"size": 3_100_000}))
        assert failure.value.sent
        await until(lambda: to.pids == [])


@ERAS
async def test_crash_names_exit_code_and_last_words_without_secrets(version: str) -> None:
    async with upstream(config({"TOKEN": "hunter2-secret"})) as to:
        client = await connected(to, version)
        with pytest.raises(UpstreamFailed) as failure:
            await read(await client.call("crash"))
        assert str(failure.value) == (
            'upstream "files": its process exited with code 3; '
            "last words: boom: cannot go on with *** | last line without an end"
        )
        assert failure.value.sent


async def test_session_of_a_crashed_process_is_gone_and_others_live() -> None:
    async with upstream() as to:
        one, two = await connected(to, LEGACY), await connected(to, LEGACY)
        waiting = await two.call("ask")
        with pytest.raises(UpstreamFailed):
            await read(await one.call("crash"))
        assert (await one.call("echo")).status == 404
        assert (await two.call("echo")).status == 200
        await waiting.close()


async def test_crash_fails_everything_in_flight_and_the_next_request_starts_a_new_process() -> None:
    async with upstream(stream_delay=0.01) as to:
        waiting = [await Client(to, agent=str(number)).call("hold") for number in range(5)]
        before = to.pids
        with pytest.raises(UpstreamFailed):
            await read(await Client(to).call("crash"))
        for reply in waiting:
            with pytest.raises(UpstreamFailed, match="exited with code 3"):
                await read(reply)
        assert (await Client(to).call("echo")).status == 200
        assert to.pids != before


async def test_crash_loop_is_slowed_down_and_says_when_it_starts_again() -> None:
    async with upstream(config({"DIE_AT_START": "1"})) as to:
        failures = []
        for _ in range(3):
            with pytest.raises(UpstreamFailed) as failure:
                await Client(to).call("echo")
            failures.append(failure.value)
        assert "last words: no database" in str(failures[0])
        assert [failure.sent for failure in failures] == [True, True, False]
        assert "last words: no database; it failed 2 times in a row, the next start is in 0." in str(failures[2])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-program-anywhere",), "no such program in PATH; install it"),
        (("/no/such/program",), "no such program there"),
    ],
)
async def test_program_that_cannot_start_is_named_and_nothing_was_sent(command: tuple[str, ...], said: str) -> None:
    async with upstream(StdioConfig(command)) as to:
        for version in ("2026-07-28", LEGACY):
            with pytest.raises(UpstreamFailed, match=said) as failure:
                await connected_call(to, version)
            assert not failure.value.sent


async def test_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no program")
    async with upstream(StdioConfig((str(tmp_path / "notes"),))) as to:
        with pytest.raises(UpstreamFailed, match="Permission denied; correct its command"):
            await Client(to).call("echo")


async def connected_call(to: Any, version: str) -> None:
    client = await connected(to, version)
    await client.call("echo")


async def test_missing_directory_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    async with upstream(config(directory=str(missing))) as to:
        with pytest.raises(UpstreamFailed, match=r"directory .* does not exist"):
            await Client(to).call("echo")


async def test_last_answer_before_an_exit_is_not_lost() -> None:
    async with upstream() as to:
        (answer,) = await read(await Client(to).call("answer_and_exit"))
        assert len(answer["result"]["blob"]) == 200_000


@ERAS
async def test_process_that_closes_its_output_is_ended(version: str) -> None:
    async with upstream() as to:
        client = await connected(to, version)
        with pytest.raises(UpstreamFailed, match="closed its output"):
            await read(await client.call("close_stdout"))
        await until(lambda: to.pids == [])


async def test_process_that_does_not_read_refuses_unsent_instead_of_growing() -> None:
    async with upstream(input_limit=100_000, stream_delay=0.01, stop_grace=0.1) as to:
        client = Client(to)
        replies = [await client.call("deaf")]
        refused = None
        for _ in range(100):
            try:
                replies.append(await client.call("echo", {"blob": "x" * 50_000}))
            except UpstreamFailed as failure:
                refused = failure
                break
        assert refused is not None
        assert "does not read its input" in str(refused)
        assert not refused.sent
        for reply in replies:
            await reply.close()


async def test_flood_toward_a_modern_client_that_does_not_read_breaks_its_stream_only() -> None:
    async with upstream(stream_limit=100_000) as to:
        logs = {"io.modelcontextprotocol/logLevel": "info"}
        slow = await Client(to, agent="slow").call("flood", {"lines": 5000, "width": 100}, meta=logs)
        (answer,) = await read(await Client(to, agent="other").call("echo", {"a": 1}))
        assert answer["result"]["echo"] == {"a": 1}
        with pytest.raises(UpstreamFailed, match="reads too slowly"):
            await read(slow)


async def test_flood_toward_a_legacy_client_is_held_back_and_arrives_whole() -> None:
    async with upstream(stream_limit=100_000, replay_limit=50_000) as to:
        client = await connected(to, LEGACY)
        reply = await client.call("flood", {"lines": 5000, "width": 100})
        session = to._table.sessions[str(client.session)]
        await until(lambda: bool(session._lagging))
        held = session._kept
        await asyncio.sleep(0.1)
        assert session._kept == held < 3_000_000
        messages = await read(reply)
        assert len(messages) == 5001
        assert session._kept <= 50_000


async def test_legacy_client_that_never_reads_loses_the_stream_and_not_the_session() -> None:
    async with upstream(stream_limit=10_000, stall_timeout=2.0, replay_limit=100_000) as to:
        client = await connected(to, LEGACY)
        slow = await client.call("flood", {"lines": 20000, "width": 10})
        session = to._table.sessions[str(client.session)]
        await until(lambda: bool(session._lagging))
        assert (await read(await client.call("echo", {"a": 1})))[-1]["result"]["echo"] == {"a": 1}
        with pytest.raises(UpstreamFailed, match="has not read its stream"):
            await read(slow)
        assert session._kept <= 100_000


async def test_stubborn_process_and_its_child_are_killed() -> None:
    async with upstream(config({"IGNORE_END": "1"}, stop_grace=0.1)) as to:
        client = Client(to)
        child = await client.result("fork")
        pid = await client.result("stubborn")
        assert alive(child)
        assert alive(pid)
        with anyio.fail_after(60):
            await to.close()
        assert not alive(pid)
        await until(lambda: not alive(child))


async def test_child_that_a_crashed_process_left_behind_is_ended() -> None:
    async with upstream(stop_grace=0.2) as to:
        client = Client(to)
        child = await client.result("fork")
        with pytest.raises(UpstreamFailed):
            await read(await client.call("crash"))
        await until(lambda: not alive(child) and to.pids == [])


async def test_process_sees_the_operators_environment_and_none_of_the_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULCRUM_ADMIN_KEY", "flcrm_sk_secret")
    async with upstream(config({"TOKEN": "t0ken"})) as to:
        environment = await Client(to).result("environment")
    assert environment["TOKEN"] == "t0ken"
    assert not [name for name in environment if name.startswith("FULCRUM_")]


async def test_process_inherits_no_descriptor_of_the_gateway_and_closing_gives_all_back() -> None:
    async with upstream() as to:
        await Client(to).call("echo")
    before = descriptors_here()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        async with upstream() as to:
            await connected(to, LEGACY)
            descriptors = await Client(to).result("descriptors")
            assert descriptors[:3] == [0, 1, 2]
            assert listening.fileno() not in descriptors
            assert len(descriptors) == 4
    await until(lambda: descriptors_here() == before)


async def test_stderr_reaches_the_log_line_by_line() -> None:
    lines: list[tuple[str, str]] = []
    to = StdioUpstream("files", config({"TOKEN": "hunter2"}), log=lambda name, line: lines.append((name, line)))
    with pytest.raises(UpstreamFailed):
        await read(await Client(to).call("crash"))
    await to.close()
    assert lines == [("files", "boom: cannot go on with ***"), ("files", "last line without an end")]


async def test_principal_at_its_limit_gives_up_its_oldest_quiet_session_and_never_a_listening_one() -> None:
    async with upstream(max_processes_per_principal=2) as to:
        one, two, three = Client(to, LEGACY), Client(to, LEGACY), Client(to, LEGACY)
        await one.initialize()
        await two.initialize()
        await three.initialize()
        assert (await one.call("echo")).status == 404
        assert len([pid for pid in to.pids if alive(pid)]) <= 3
        for client in (two, three):
            await to.send(client.request("GET"))
        with pytest.raises(UpstreamFailed, match="limit of 2; end a session first") as failure:
            await Client(to, LEGACY).initialize()
        assert not failure.value.sent
        assert (await Client(to, LEGACY, "another").initialize()).status == 200


async def test_all_principals_together_stay_under_the_limit_also_when_they_come_at_once() -> None:
    async with upstream(max_processes=3) as to:
        outcomes: list[int | str] = []

        async def one(number: int) -> None:
            try:
                outcomes.append((await Client(to, LEGACY, f"a{number}").initialize()).status)
            except UpstreamFailed as failure:
                outcomes.append(str(failure))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(one, number)
        assert len(to.pids) == 3
        assert outcomes.count(200) == 3
        assert outcomes.count('upstream "files": no new process: the limit of 3 is reached; try again later') == 3


async def test_idle_sessions_and_an_idle_shared_process_are_ended_and_busy_ones_live() -> None:
    async with upstream(idle_timeout=1.5) as to:
        busy = await connected(to, LEGACY)
        standing = await to.send(busy.request("GET"))
        idle = await connected(to, LEGACY)
        await Client(to).call("echo")
        await until(lambda: len(to.pids) == 1)
        assert (await idle.call("echo")).status == 404
        assert (await busy.call("echo")).status == 200
        await standing.close()


async def test_session_with_too_many_unanswered_requests_takes_no_more() -> None:
    async with upstream(max_in_flight=2, stream_delay=0.01) as to:
        client = await connected(to, LEGACY)
        for _ in range(2):
            await (await client.call("hold")).close()
        with pytest.raises(UpstreamFailed, match="2 requests of this session are unanswered") as failure:
            await client.call("echo")
        assert not failure.value.sent


async def test_cancelled_start_leaves_no_process() -> None:
    async with upstream() as to:
        for version in (LEGACY, "2026-07-28"):
            for _ in range(5):
                task = asyncio.create_task(connected_call(to, version))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await until(lambda: len(to._table.sessions) == 0 and len(to.pids) <= 1)


async def test_closed_upstream_starts_nothing() -> None:
    async with upstream() as to:
        await Client(to).call("echo")
        await to.close()
        await to.close()
        with pytest.raises(UpstreamFailed, match="being stopped"):
            await Client(to).call("echo")


def test_servers_of_a_killed_gateway_die_even_when_they_ignore_the_end_of_input_and_sigterm(tmp_path: Path) -> None:
    program = tmp_path / "gateway.py"
    program.write_text(
        textwrap.dedent(f"""
        import asyncio, os, sys
        sys.path.insert(0, {str(SCRIPT.parent.parent)!r})
        from peers.stdio_client import Client, config
        from fulcrum_adapters.upstream.stdio import StdioUpstream

        async def main():
            to = StdioUpstream("files", config({{"IGNORE_END": "1"}}))
            client = Client(to)
            pid, child = await client.result("pid"), await client.result("fork")
            print(pid, child, to._table._guard.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
        """)
    )
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        pids = [int(word) for word in gateway.stdout.readline().split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        gateway.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if alive(pid)], timeout=15)
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
