"""Messages of many clients over shared and own processes: nothing crosses, nothing is lost."""

import json
from typing import Any

import anyio
import pytest
from peers.stdio_client import META, Client, config, read, upstream

from fulcrum_adapters.upstream.stdio import StdioUpstream
from fulcrum_mcp.ports import UpstreamReply

pytestmark = [pytest.mark.anyio, pytest.mark.service]

LEGACY = "2025-11-25"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def legacy(to: StdioUpstream, version: str = LEGACY, agent: str = "agent") -> Client:
    client = Client(to, version, agent)
    await read(await client.initialize())
    return client


async def message(reply: UpstreamReply) -> Any:
    """The next message of a stream."""
    with anyio.fail_after(10):
        async for event in reply.events():
            if event.data:
                return json.loads(event.data)
    return None


async def test_two_hundred_modern_clients_with_equal_ids_and_tokens_never_see_each_others_canaries() -> None:
    async with upstream() as to:

        async def one(number: int) -> None:
            client = Client(to, agent=f"agent{number}")
            canary = {"steps": 3, "canary": f"c{number}"}
            messages = await read(await client.call("progress", canary, number=1, meta={"progressToken": "t"}))
            assert [m["params"]["progressToken"] for m in messages[:-1]] == ["t"] * 3
            assert [m["params"]["canary"] for m in messages[:-1]] == [canary] * 3
            assert messages[-1] == {"jsonrpc": "2.0", "id": 1, "result": {"echo": canary}}

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for number in range(200):
                    group.start_soon(one, number)
        assert len(to.pids) == 1


async def test_answers_out_of_order_find_their_requests() -> None:
    async with upstream() as to:
        answers: dict[int, Any] = {}

        async def hold(number: int) -> None:
            answers[number] = await read(
                await Client(to, agent=f"a{number}").call("hold", {"n": number}, number="same")
            )

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(hold, number)
                while len(to._table.modern.exchanges if to._table.modern else ()) < 5:
                    await anyio.lowlevel.checkpoint()
                await Client(to).call("release")
        assert {n: a[-1]["result"]["echo"] for n, a in answers.items()} == {n: {"n": n} for n in range(5)}
        assert {a[-1]["id"] for a in answers.values()} == {"same"}


async def test_values_pass_unchanged_both_ways_and_ids_keep_their_type() -> None:
    odd = {"big": 2**80, "float": 1.5, "text": "\u2028\u0085é", "unknown": {"null": None, "deep": [[[]]]}}
    async with upstream() as to:
        for number in (7, "7", 0, -1, "", 2**70):
            (answer,) = await read(await Client(to).call("echo", odd, number=number, meta={"progressToken": 1.5}))
            assert answer["id"] == number
            assert type(answer["id"]) is type(number)
            assert answer["result"] == {
                "echo": odd,
                "_meta": {**META, "progressToken": 1.5},
                "number": 123456789012345678901234567890,
            }


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_legacy_session_has_its_own_process_and_its_answer_passes_unchanged(version: str) -> None:
    async with upstream() as to:
        one, two = Client(to, version), Client(to, version)
        reply = await one.initialize()
        (answer,) = await read(reply)
        assert answer["result"]["protocolVersion"] == version
        assert b'"extra": 1.5' in await reply.read()
        await two.initialize()
        assert one.session != two.session
        assert await one.result("pid") != await two.result("pid")
        (missing,) = await read(await one.post("no/such", {}))
        assert missing["error"]["code"] == -32601
        assert (await one.notify("notifications/initialized", {})).status == 202


async def test_session_of_another_principal_or_nobody_does_not_exist() -> None:
    async with upstream() as to:
        mine = await legacy(to)
        thief = Client(to, LEGACY, "thief")
        thief.session = mine.session
        assert [(await thief.call("echo")).status, (await thief.to.send(thief.request("GET"))).status] == [404, 404]
        assert (await to.send(thief.request("DELETE"))).status == 404
        assert (await mine.call("echo")).status == 200
        thief.session = None
        assert (await thief.call("echo")).status == 400


async def test_deleted_session_is_gone_with_its_process() -> None:
    async with upstream() as to:
        client = await legacy(to)
        standing = await to.send(client.request("GET"))
        assert (await to.send(client.request("DELETE"))).status == 204
        assert to.pids == []
        assert await read(standing) == []
        reply = await client.call("echo")
        assert reply.status == 404
        assert (await read(reply))[0]["id"] == 2


async def test_refused_initialize_leaves_no_session_and_no_process() -> None:
    async with upstream(config({"REFUSE": "1"}, stop_grace=1.0)) as to:
        reply = await Client(to, LEGACY).initialize()
        assert "mcp-session-id" not in reply.headers
        assert (await read(reply))[0]["error"]["message"] == "refused"
        assert to._table.sessions == {}


async def test_client_that_leaves_before_initialize_was_answered_leaves_no_process() -> None:
    async with upstream(config({"MUTE": "1"}, stream_delay=0.01)) as to:
        reply = await Client(to, LEGACY).initialize()
        assert "mcp-session-id" in reply.headers
        await reply.close()
        with anyio.fail_after(10):
            while to.pids:  # noqa: ASYNC110  # what other processes do has no event here
                await anyio.sleep(0.01)
        assert to._table.sessions == {}


async def test_get_and_delete_are_not_allowed_in_the_modern_version() -> None:
    async with upstream() as to:
        for verb in ("GET", "DELETE"):
            reply = await to.send(Client(to).request(verb))
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert to.pids == []


async def test_modern_errors_before_a_stream_have_the_statuses_of_the_specification() -> None:
    async with upstream() as to:
        assert [(await Client(to).post("no/such", {"_meta": META})).status, (await Client(to).call("no")).status] == [
            404,
            400,
        ]


async def test_server_request_reaches_the_calling_stream_and_its_answer_finds_back() -> None:
    async with upstream() as to:
        client = await legacy(to)
        reply = await client.call("ask")
        assert reply.streams
        asked = await message(reply)
        assert (asked["method"], asked["id"]) == ("elicitation/create", "q1")
        stranger = {"jsonrpc": "2.0", "id": "never asked", "result": {}}
        assert (await to.send(client.request("POST", stranger))).status == 202
        told = {"jsonrpc": "2.0", "id": "q1", "result": {"name": "Ada"}}
        assert (await to.send(client.request("POST", told))).status == 202
        assert (await message(reply))["result"] == {"answered": {"name": "Ada"}}
        assert stranger not in await client.result("seen")


async def test_list_changed_goes_to_the_get_stream_when_it_is_open_and_a_second_one_is_refused() -> None:
    async with upstream() as to:
        client = await legacy(to, "2025-06-18")
        standing = await to.send(client.request("GET"))
        assert (await to.send(client.request("GET"))).status == 409
        (answer,) = await read(await client.call("changed"))
        assert "result" in answer
        assert (await message(standing))["method"] == "notifications/tools/list_changed"
        await standing.close()
        assert (await to.send(client.request("GET"))).status == 200


async def test_log_of_the_only_request_goes_to_its_stream() -> None:
    async with upstream() as to:
        client = await legacy(to)
        messages = await read(await client.call("log", {"a": 1}))
        assert [m.get("method") for m in messages] == ["notifications/message", None]


async def test_client_that_left_resumes_and_gets_the_rest_once_the_priming_event_gave_an_id() -> None:
    async with upstream(stream_delay=0.01) as to:
        client = await legacy(to)
        reply = await client.call("hold", {"n": 1})
        priming = await anext(reply.events())
        assert (priming.data, priming.retry) == (b"", 1000)
        await reply.close()
        await client.call("release")
        resumed = await to.send(client.request("GET", resume=priming.id))
        assert (await message(resumed))["result"] == {"echo": {"n": 1}}
        again = await to.send(client.request("GET", resume=priming.id))
        assert len(await read(again)) == 1
        assert (await to.send(client.request("GET", resume="77-1"))).status == 400


async def test_stream_that_is_still_read_can_be_resumed_beside_it() -> None:
    async with upstream(stream_delay=0.01) as to:
        client = await legacy(to)
        reply = await client.call("hold", {"n": 1})
        priming = await anext(reply.events())
        resumed = await to.send(client.request("GET", resume=priming.id))
        await client.call("release")
        assert await message(resumed) == await message(reply)


async def test_older_versions_get_no_priming_event() -> None:
    async with upstream(stream_delay=0.01) as to:
        client = await legacy(to, "2025-06-18")
        reply = await client.call("log_and_hold", {"n": 1})
        first = await anext(reply.events())
        assert json.loads(first.data)["method"] == "notifications/message"


async def test_legacy_cancellation_reaches_the_server_with_its_own_id_and_ends_a_silent_stream() -> None:
    async with upstream(stream_delay=0.01, cancel_grace=0.01) as to:
        client = await legacy(to)
        reply = await client.call("hold", number="mine")
        await client.notify("notifications/cancelled", {"requestId": "mine", "reason": "enough"})
        assert await read(reply) == []
        seen = await client.result("seen")
        (held,) = [m["id"] for m in seen if m.get("params", {}).get("name") == "hold"]
        assert [m["params"] for m in seen if m["method"] == "notifications/cancelled"] == [
            {"requestId": held, "reason": "enough"}
        ]


async def test_closing_a_modern_stream_cancels_exactly_that_request() -> None:
    async with upstream(stream_delay=0.01) as to:
        one, two = Client(to, agent="one"), Client(to, agent="two")
        reply, other = await one.call("hold", number=1), await two.call("hold", {"n": 2}, number=1)
        await reply.close()
        await reply.close()
        seen = await Client(to).result("seen")
        held = [m["id"] for m in seen if m.get("params", {}).get("name") == "hold"]
        cancelled = [m["params"] for m in seen if m["method"] == "notifications/cancelled"]
        assert cancelled == [{"requestId": held[0]}]
        await one.call("release")
        assert (await message(other))["result"] == {"echo": {"n": 2}}


async def test_cancelling_the_waiting_task_cancels_the_modern_request() -> None:
    async with upstream(stream_delay=60.0) as to:
        client = Client(to)
        await client.call("echo")
        with anyio.move_on_after(0.5):
            await client.call("hold")
        assert [m["method"] for m in await client.result("seen")][-2:] == ["notifications/cancelled", "tools/call"]


async def test_modern_cancellation_notice_reaches_only_the_senders_own_request() -> None:
    async with upstream(stream_delay=0.01, cancel_grace=0.01) as to:
        mine, thief = Client(to, agent="mine"), Client(to, agent="thief")
        reply = await mine.call("hold", {"n": 1}, number=1)
        await thief.notify("notifications/cancelled", {"requestId": 1})
        assert "notifications/cancelled" not in [m["method"] for m in await thief.result("seen")]
        await mine.notify("notifications/cancelled", {"requestId": 1})
        assert await read(reply) == []


@pytest.mark.parametrize("end", ["end_by_result", "end_by_cancel"])
async def test_listen_streams_get_their_own_subscription_id_until_they_end(end: str) -> None:
    async with upstream() as to:
        clients = [Client(to, agent=name) for name in ("one", "two")]
        streams = [await c.post("subscriptions/listen", {"notifications": {}, "_meta": META}, 5) for c in clients]
        await Client(to).call("emit")
        await Client(to).call(end)
        for stream in streams:
            with anyio.fail_after(5):
                messages = await read(stream)
            assert [m["params"]["_meta"][SUBSCRIPTION] for m in messages[:2]] == [5, 5]
            last = messages[2]
            assert (
                last["result"]["_meta"][SUBSCRIPTION] == 5
                if end == "end_by_result"
                else last["params"]["requestId"] == 5
            )


async def test_log_that_could_be_for_two_principals_is_given_to_neither() -> None:
    logs = {"io.modelcontextprotocol/logLevel": "info"}
    async with upstream(stream_delay=0.01) as to:
        one, two = Client(to, agent="one"), Client(to, agent="two")
        waiting = await one.call("hold", {"n": 1}, meta=logs)
        (answer,) = await read(await two.call("log", {"secret": 2}, meta=logs))
        assert "result" in answer
        await waiting.close()
        (answer,) = await read(await two.call("log", {"secret": 2}, meta=logs))
        assert "result" in answer


async def test_log_for_the_only_client_that_asked_reaches_it() -> None:
    logs = {"io.modelcontextprotocol/logLevel": "info"}
    async with upstream(stream_delay=0.01) as to:
        waiting = await Client(to, agent="silent").call("hold")
        messages = await read(await Client(to, agent="asked").call("log", {"a": 1}, meta=logs))
        assert [m.get("method") for m in messages] == ["notifications/message", None]
        await waiting.close()


async def test_server_request_in_the_modern_version_is_refused_toward_the_server() -> None:
    async with upstream(stream_delay=0.01) as to:
        client = Client(to)
        with anyio.fail_after(5):
            messages = await read(await client.call("ask"))
        assert messages[-1]["result"] == {"answered": None}
