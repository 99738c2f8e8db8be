"""Two workers of one host, sockets between them: whichever a request comes to, the one it belongs to serves it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import KEY, PRINCIPAL, Client, Rig, open_rig
from live_stream import LiveStream, answer, open_get, open_post, until
from scripted_server import ScriptedServer, json_reply, tool
from sibling_sockets import serving, short_folder

from fulcrum_adapters.memory.upstream import MemoryReply
from fulcrum_mcp.api import siblings
from fulcrum_mcp.api.siblings import Siblings
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.ports import UpstreamRequest

pytestmark = pytest.mark.anyio

BOB = Principal("acme", "bob", "k2", ("dev",), frozenset({"tool:call"}))
PRINCIPALS = {KEY: PRINCIPAL, "key-of-bob": BOB}
PATHS = ("/servers/files/mcp", "/mcp")
ASK = {"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create", "params": {}}}}


class Upstream:
    """A server with a tool for everything that binds a client to a worker; one for both workers."""

    def __init__(self) -> None:
        self.streams: list[LiveStream] = []
        self.told: list[str] = []
        tools = [tool("echo"), tool("stream"), tool("ask"), tool("work")]
        self.server = ScriptedServer("files", tools=tools, answer=self._answer)

    def _answer(self, _: ScriptedServer, request: UpstreamRequest) -> MemoryReply | None:
        document = request.document or {}
        params, method = document.get("params", {}), document.get("method", "")
        self.told.append(f"{request.verb} {method}")
        result: dict[str, Any]
        if request.verb == "GET" or params.get("name") == "stream":
            self.streams.append(LiveStream())
            return self.streams[-1].reply
        if params.get("name") == "ask" and "inputResponses" not in params:
            result = {**ASK, "requestState": "up-1"}
        elif params.get("name") == "work":
            result = {"resultType": "task", "taskId": "t1", "status": "working"}
        elif method.startswith("tasks/"):
            result = {"taskId": params.get("taskId"), "status": "completed"}
        else:
            return None
        return json_reply({"jsonrpc": "2.0", "id": document["id"], "result": result})


class Pair:
    """Two workers; the socket of each can be taken away."""

    def __init__(
        self, one: Rig, two: Rig, upstream: Upstream, end_of_one: AsyncExitStack, end_of_two: AsyncExitStack
    ) -> None:
        self.one = one
        self.two = two
        self.upstream = upstream
        self.end_of_one = end_of_one
        self.end_of_two = end_of_two

    def ends(self) -> tuple[int, int]:
        """The calls that each has finished."""
        return len(self.one.records("finished")), len(self.two.records("finished"))

    async def settled(self) -> None:
        await self.one.settled()
        await self.two.settled()


@asynccontextmanager
async def pair(processes: Collection[str] = ()) -> AsyncIterator[Pair]:
    upstream = Upstream()
    with short_folder() as name:
        async with AsyncExitStack() as stack:
            rigs: list[Rig] = []
            for number in (1, 2):
                place = Siblings(Seat(number, 2), Path(name))
                rigs.append(
                    await stack.enter_async_context(
                        open_rig(
                            upstream.server, principals=PRINCIPALS, siblings=place, warm=False, processes=processes
                        )
                    )
                )
                await rigs[-1].hub.exchanges["files"].catalog.refresh()
            ends = [await stack.enter_async_context(AsyncExitStack()) for _ in rigs]
            for number, (rig, end) in enumerate(zip(rigs, ends, strict=True), 1):
                await end.enter_async_context(serving(rig.endpoint, Path(name) / f"{number}.sock"))
            yield Pair(rigs[0], rigs[1], upstream, ends[0], ends[1])


async def at_second(both: Pair, path: str) -> Client:
    """A client whose session the second worker keeps, and whose requests come to the first."""
    client = both.two.client(path, modern=False)
    await client.connect()
    assert client.session is not None
    client.rig = both.one
    return client


def named(client: Client, name: str) -> str:
    return name if client.path != "/mcp" else f"files__{name}"


@pytest.mark.parametrize("path", PATHS)
async def test_request_of_a_session_is_served_by_the_worker_that_made_it(path: str) -> None:
    async with pair() as both:
        client = await at_second(both, path)
        for rig in (both.one, both.two, both.one):
            client.rig = rig
            reply = await client.request("tools/call", {"name": named(client, "echo"), "arguments": {"a": "ä"}})
            assert reply.status == 200
            assert reply.result["echo"]["arguments"] == {"a": "ä"}
            assert reply.header("server-timing")
        await both.settled()
        assert both.ends() == (0, 3)


@pytest.mark.parametrize("path", PATHS)
async def test_stream_through_a_sibling_comes_event_by_event_and_can_be_cancelled_over_another_connection(
    path: str,
) -> None:
    async with pair() as both:
        client = await at_second(both, path)
        stream = open_post(client, "tools/call", {"name": named(client, "stream"), "arguments": {}})
        await stream.head()
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
        both.upstream.streams[0].push(progress)
        assert (await stream.next_event()).message == progress
        cancelled = {"requestId": 7}
        assert (await client.notify("notifications/cancelled", cancelled)).status == 202
        both.upstream.streams[0].push(answer(7))
        both.upstream.streams[0].end()
        assert (await stream.end()).events[-1].message["id"] == 7
        assert "POST notifications/cancelled" in both.upstream.told
        await both.settled()
        assert both.ends() == (0, 1)


async def test_listening_client_that_goes_ends_its_stream_at_the_owner() -> None:
    async with pair() as both:
        client = await at_second(both, PATHS[0])
        listening = open_get(client)
        await listening.head()
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        both.upstream.streams[0].push(changed)
        assert (await listening.next_event()).message == changed
        listening.disconnect()
        await until(both.upstream.streams[0].reply.closed.is_set, "the upstream's stream was closed")
        async with asyncio.timeout(5):
            await listening.task


async def test_stream_lost_through_one_worker_is_resumed_through_another() -> None:
    async with pair() as both:
        client = await at_second(both, PATHS[0])
        stream = open_post(client, "tools/call", {"name": "stream", "arguments": {}})
        await stream.head()
        both.upstream.streams[0].push(None, "e0")
        await stream.next_event()
        stream.disconnect()
        async with asyncio.timeout(5):
            await stream.task
        both.upstream.streams[0].push(answer(7), "e1")
        both.upstream.streams[0].end()
        for rig in (both.one, both.two):
            client.rig = rig
            resumed = await open_get(client, "e0").end()
            assert [event.id for event in resumed.events] == ["e1"]
        await both.settled()
        assert both.ends() == (0, 1)


async def test_session_ends_for_all_workers_through_any_of_them() -> None:
    async with pair() as both:
        client = await at_second(both, PATHS[0])
        headers = [(name.encode(), value.encode()) for name, value in client.headers("", {})]
        reply = await both.one.app.request("DELETE", client.path, [*headers, (b"host", b"127.0.0.1")])
        assert reply.status in (200, 204)
        assert "DELETE " in both.upstream.told


async def test_session_of_somebody_else_is_not_found_through_a_sibling_either() -> None:
    async with pair() as both:
        client = await at_second(both, PATHS[0])
        thief = both.one.client(PATHS[0], modern=False, key="key-of-bob")
        thief.session = client.session
        reply = await thief.request("tools/call", {"name": "echo", "arguments": {}})
        assert (reply.status, reply.message["error"]["message"]) == (404, "Session not found")
        nobody = both.one.client(PATHS[0], modern=False, key="no-key")
        nobody.session = client.session
        assert (await nobody.request("tools/call", {"name": "echo", "arguments": {}})).status == 401
        await both.settled()
        assert both.ends() == (0, 0)


async def test_session_whose_worker_is_gone_is_not_found() -> None:
    async with pair() as both:
        client = await at_second(both, PATHS[0])
        await both.end_of_two.aclose()
        reply = await client.request("tools/call", {"name": "echo", "arguments": {}})
        assert (reply.status, reply.message["error"]["message"]) == (404, "Session not found")
        await both.settled()
        assert both.ends() == (0, 0)


async def test_session_of_another_host_is_kept_by_one_worker_only() -> None:
    async with pair() as both:
        made = both.one.hub.sessions
        tokens = [made.create(PRINCIPAL, {}, None).token for _ in range(20)]
        assert [both.two.hub.sessions.elsewhere(token) for token in tokens] == [1] * 20
        for rig in (both.one, both.two):
            rig.hub.sessions._seat = Seat(rig.hub.sessions._seat.number + 2, 4)
        homes = [both.one.hub.sessions.create(PRINCIPAL, {}, None).token for _ in range(20)]
        for rig, number in ((both.one, 1), (both.two, 2)):
            rig.hub.sessions._seat = Seat(number, 2)
            rig.hub.sessions._known.clear()
        first = [both.one.hub.sessions.elsewhere(token) for token in homes]
        second = [both.two.hub.sessions.elsewhere(token) for token in homes]
        assert all((one is None) != (two is None) for one, two in zip(first, second, strict=True))
        assert {*first} == {None, 2}


async def test_owner_that_ends_meanwhile_is_told_and_nothing_is_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    held = asyncio.Event()

    async def late(_: Any, _send: Any) -> None:
        held.set()
        await asyncio.Event().wait()

    async with pair() as both:
        client = await at_second(both, PATHS[0])
        begun = open_post(client, "tools/call", {"name": "stream", "arguments": {}}, request_id=8)
        await begun.head()
        monkeypatch.setattr("fulcrum_mcp.api.mcp.endpoint.send_answer", late)
        waiting = open_post(client, "tools/call", {"name": "echo", "arguments": {}})
        async with asyncio.timeout(5):
            await held.wait()
        await both.end_of_two.aclose()
        reply = await waiting.end()
        assert (reply.status, reply.message["id"]) == (502, 7)
        assert "the audit trail says" in reply.message["error"]["message"]
        async with asyncio.timeout(5):
            await begun.task
        assert begun.response.status == 200
        assert both.upstream.told.count("POST tools/call") == 2


@pytest.mark.parametrize("dead", [False, True])
async def test_leg_of_a_call_comes_back_to_the_worker_in_which_the_call_waits(dead: bool) -> None:
    async with pair() as both:
        client = both.two.client(PATHS[0])
        params: dict[str, Any] = {"name": "ask", "arguments": {"path": "/a"}}
        state = (await client.request("tools/call", params)).result["requestState"]
        if dead:
            await both.end_of_two.aclose()
        client.rig = both.one
        params |= {"requestState": state, "inputResponses": {"q": {"action": "accept", "content": {}}}}
        assert "echo" in (await client.request("tools/call", params)).result
        await both.settled()
        legs = [(rig, each["data"]["leg"]) for rig in (both.one, both.two) for each in rig.records("decided")]
        # The call of a worker that is gone goes on as a new one: nobody here holds its reservation.
        assert legs == ([(both.one, 0), (both.two, 0)] if dead else [(both.two, 0), (both.two, 1)])


async def test_task_is_found_whichever_worker_began_it_and_by_its_principal_only() -> None:
    async with pair() as both:
        client = both.two.client(PATHS[0])
        assert (await client.request("tools/call", {"name": "work", "arguments": {}})).result["taskId"] == "t1"
        client.rig = both.one
        thief = both.one.client(PATHS[0], key="key-of-bob")
        assert "no such task" in (await thief.request("tasks/get", {"taskId": "t1"})).message["error"]["message"]
        assert "no such task" in (await client.request("tasks/get", {"taskId": "t2"})).message["error"]["message"]
        assert (await client.request("tasks/get", {"taskId": "t1"})).result["status"] == "completed"
        await both.settled()
        assert both.ends() == (0, 1)


@asynccontextmanager
async def deaf(name: str, numbers: Collection[int]) -> AsyncIterator[list[bytes]]:
    """Workers that are there and read, and begin with nothing; gives what each was sent."""
    heard: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    async with AsyncExitStack() as stack:
        for number in numbers:
            await stack.enter_async_context(await asyncio.start_unix_server(read, str(Path(name) / f"{number}.sock")))
        yield heard


@pytest.mark.parametrize("what", ["session", "leg", "task"])
async def test_busy_worker_is_no_lost_one_and_what_it_did_not_begin_with_is_not_done(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(siblings, "_PATIENCE", 0.1)
    monkeypatch.setattr(siblings, "_PROBE", 0.1)
    with short_folder() as name:
        upstream = Upstream()
        place = Siblings(Seat(1, 3), Path(name))
        async with deaf(name, (2, 3)) as heard, open_rig(upstream.server, siblings=place) as rig:
            client = rig.client(PATHS[0], modern=what != "session")
            params: dict[str, Any] = {"name": "ask", "arguments": {"marker": "x"}}
            for owned in (rig.hub.sessions, rig.hub.rounds):
                owned._seat = Seat(2, 3)
            if what == "session":
                client.session = rig.hub.sessions.create(PRINCIPAL, {}, None).token
            elif what == "leg":
                state = (await client.request("tools/call", params)).result["requestState"]
                params |= {"requestState": state, "inputResponses": {"q": {"action": "accept", "content": {}}}}
            for owned in (rig.hub.sessions, rig.hub.rounds):
                owned._seat = Seat(1, 3)
            rig.hub.sessions._known.clear()
            called = upstream.told.count("POST tools/call")
            method = "tasks/get" if what == "task" else "tools/call"
            async with asyncio.timeout(5):
                reply = await client.request(method, {"taskId": "t1"} if what == "task" else params)
            assert (reply.status, reply.header("retry-after")) == (503, "1")
            assert (reply.message["id"] is not None, reply.message["error"]["message"]) == (
                True,
                "the worker that this request belongs to is busy, and has not begun with it; send it again",
            )
            await until(lambda: len(heard) == (2 if what == "task" else 1), "it was given up")
            assert all(b"jsonrpc" not in each for each in heard)
            assert upstream.told.count("POST tools/call") == called


@pytest.mark.parametrize("path", PATHS)
async def test_what_clients_without_sessions_tell_a_process_reaches_the_same_one(path: str) -> None:
    async with pair(["files"]) as both:
        for rig in (both.one, both.two):
            client = rig.client(path)
            for method, params in (
                ("tools/call", {"name": named(client, "echo"), "arguments": {}}),
                ("tools/list", {}),
                ("tools/call", {"name": named(client, "ask"), "arguments": {}}),
            ):
                assert (await client.request(method, params)).status == 200
        await both.settled()
        assert both.ends() == (4, 0)
        assert both.two.engine.asked == []
        await both.end_of_one.aclose()
        late = await both.two.client(path).request("tools/call", {"name": named(client, "echo"), "arguments": {}})
        assert (late.status, late.header("retry-after")) == (503, "1")
        assert "is being replaced; try again" in late.message["error"]["message"]
        assert both.two.records() == []


async def test_server_elsewhere_is_reached_from_every_worker() -> None:
    async with pair(["other"]) as both:
        for rig in (both.one, both.two):
            client = rig.client("/mcp")
            assert (await client.request("tools/call", {"name": "files__echo", "arguments": {}})).status == 200
        await both.settled()
        assert both.ends() == (1, 1)
