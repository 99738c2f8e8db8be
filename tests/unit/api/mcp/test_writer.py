import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgi_driver import parse_event
from hypothesis import given
from hypothesis import strategies as st
from json_values import json_values, same_json, strict_loads

from fulcrum_mcp.api.mcp.writer import event_text, send_answer, watch
from fulcrum_mcp.gateway.incoming import Answer
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import ServerSentEvent

pytestmark = pytest.mark.anyio

ids = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(json_values(), st.none() | ids, st.none() | st.integers(0, 10**6), st.sampled_from(["{}", " {}\n", "\r\n{}\r"]))
def test_event_survives_the_stream(value: Any, event_id: str | None, retry: int | None, spelling: str) -> None:
    data = spelling.replace("{}", encode(value).decode()).encode()
    text = event_text(ServerSentEvent(data, id=event_id, retry=retry)).decode()
    assert text.endswith("\n\n")
    assert "\r" not in text
    assert "\n\n" not in text[:-2] or not data.strip()
    event = parse_event(text[:-2])
    assert same_json(strict_loads(event.data.encode()), value)
    assert (event.retry, event.event) == (retry, "message")
    assert event.id == event_id


def test_priming_event_has_an_id_and_no_data() -> None:
    assert event_text(ServerSentEvent(b"", id="1", retry=5)) == b"id: 1\nretry: 5\ndata: \n\n"


@pytest.mark.parametrize(("data", "text"), [(b"", b":\n\n"), (b" ping", b": ping\n\n"), (b"a\nb", b":a\n:b\n\n")])
def test_comment_stays_a_comment(data: bytes, text: bytes) -> None:
    assert event_text(ServerSentEvent(data, comment=True)) == text


async def sent(answer: Answer) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await send_answer(send, answer)
    return messages


async def test_body_is_sent_whole_with_its_length() -> None:
    answer = Answer(200, b"{}", headers=[("retry-after", "1")], timings=(("policy", 1500), ("upstream", 20)))
    answer.session = Session("token", {}, None)
    head, body = await sent(answer)
    assert head["status"] == 200
    assert dict(head["headers"]) == {
        b"retry-after": b"1",
        b"mcp-session-id": b"token",
        b"server-timing": b"policy;dur=1.500, upstream;dur=0.020",
        b"content-type": b"application/json",
        b"content-length": b"2",
    }
    assert body == {"type": "http.response.body", "body": b"{}"}


async def test_answer_without_a_body_has_no_type() -> None:
    head, _ = await sent(Answer(202))
    assert head["headers"] == [(b"content-length", b"0")]


async def test_stream_is_closed_once_whatever_happens() -> None:
    closed: list[int] = []

    async def events(fault: Exception | None) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(b"{}")
        if fault is not None:
            raise fault

    async def close() -> None:
        closed.append(1)

    messages = await sent(Answer(200, events=events(None), close=close))
    assert (b"cache-control", b"no-cache, no-transform") in messages[0]["headers"]
    assert [message.get("more_body", False) for message in messages[1:]] == [True, True, False]
    assert closed == [1]
    with pytest.raises(ValueError, match="broken"):
        await sent(Answer(200, events=events(ValueError("broken")), close=close))
    assert closed == [1, 1]


async def test_client_that_goes_cancels_its_request_and_says_so() -> None:
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def request() -> bool:
        watcher = watch(receive)
        gone.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return watcher.gone
        return False

    async with asyncio.timeout(10):
        assert await asyncio.create_task(request())


async def test_request_that_is_done_is_not_watched_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulcrum_mcp.api.mcp.writer._WATCH_AFTER", 0)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def request() -> str:
        watch(receive).stop()
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    assert await asyncio.create_task(request()) == "done"
