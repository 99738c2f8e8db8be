"""What a session keeps beside its token is bounded, and followed live."""

import asyncio

import pytest

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway import sessions
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.gateway.sessions import Replay, Session, Sessions
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.ports import ServerSentEvent

ANN = Principal("acme", "ann", "k1")
OTHERS = [
    Principal("acme", "ann", "k2"),
    Principal("acme", "bob", "k1"),
    Principal("other", "ann", "k1"),
]


def event(number: int, size: int = 2) -> ServerSentEvent:
    return ServerSentEvent(b"x" * size, id=f"e{number}")


def rest(replay: Replay, event_id: str) -> list[str | None]:
    async def follow() -> list[str | None]:
        position = replay.position(event_id)
        assert position is not None
        return [each.id async for each in replay.follow(position)]

    return asyncio.run(follow())


def test_rest_of_a_stream_begins_after_the_last_event_seen() -> None:
    replay = Replay()
    for number in range(5):
        replay.add(event(number))
    replay.end()
    assert rest(replay, "e1") == ["e2", "e3", "e4"]
    assert rest(replay, "e4") == []
    assert replay.position("e5") is None


def test_stream_is_followed_until_its_end() -> None:
    async def run() -> list[str | None]:
        replay = Replay()
        replay.add(event(0))
        seen: list[str | None] = []

        async def follow() -> None:
            seen.extend([each.id async for each in replay.follow(1)])

        task = asyncio.create_task(follow())
        for number in (1, 2):
            await asyncio.sleep(0)
            replay.add(event(number))
        await asyncio.sleep(0)
        assert not task.done()
        replay.end()
        await task
        return seen

    assert asyncio.run(run()) == ["e1", "e2"]


def test_oldest_events_go_by_count_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MAX_EVENTS", 3)
    replay = Replay()
    for number in range(5):
        replay.add(event(number))
    replay.end()
    assert replay.position("e1") is None
    assert rest(replay, "e2") == ["e3", "e4"]
    monkeypatch.setattr(sessions, "_MAX_BYTES", 100)
    large = Replay()
    for number in range(3):
        large.add(event(number, 60))
    assert (large.position("e1"), large.position("e2")) == (None, 3)
    large.add(event(9, 500))
    assert large.position("e9") == 4


def test_session_resumes_only_what_it_can_serve_to_the_end() -> None:
    session = Session("t", {}, None)
    live, answered, lost = session.record(), session.record(), session.record()
    for name, replay in (("live", live), ("answered", answered), ("lost", lost)):
        replay.add(ServerSentEvent(b"", id=name))
    answered.answered = True
    for replay in (answered, lost):
        replay.end()
    assert session.resume("live") == (live, 1)
    assert session.resume("answered") == (answered, 1)
    assert session.resume("lost") is None
    assert session.resume("never") is None


def test_token_is_enough_for_another_worker_and_for_nobody_else() -> None:
    sealer = Sealer([b"k" * 32])
    token = Sessions(sealer).create(ANN, {"files": Via("2025-11-25", "s1")}, "cli").token
    elsewhere = Sessions(sealer)
    for principal in OTHERS:
        assert elsewhere.find(token, principal) is None
    found = elsewhere.find(token, ANN)
    assert found is not None
    assert (found.client, found.peers["files"].session, found.peers["files"].version) == ("cli", "s1", "2025-11-25")
    assert elsewhere.find(token, ANN) is found
    for principal in OTHERS:
        assert elsewhere.find(token, principal) is None
    assert Sessions(Sealer([b"o" * 32])).find(token, ANN) is None
    elsewhere.forget(found)
    assert elsewhere.find(token, ANN) is not found


def test_two_sessions_of_one_principal_are_two() -> None:
    known = Sessions(Sealer([b"k" * 32]))
    one, two = (known.create(ANN, {"a": Via("2025-11-25", "s")}, None) for _ in range(2))
    assert one.token != two.token
    assert known.find(one.token, ANN) is one


def test_token_names_its_worker_only_where_there_are_several() -> None:
    sealer = Sealer([b"k" * 32])
    alone = Sessions(sealer).create(ANN, {}, None).token
    assert b'"w"' not in (sealer.unseal(b"session", alone) or b'"w"')
    second = Sessions(sealer, Seat(2, 3))
    token = second.create(ANN, {}, None).token
    assert second.elsewhere(token) is None
    assert [Sessions(sealer, Seat(number, 3)).elsewhere(token) for number in (1, 2, 3)] == [2, None, 2]
    assert Sessions(sealer, Seat(1, 3)).elsewhere("f1.forged") is None
    assert Sessions(Sealer([b"o" * 32]), Seat(1, 3)).elsewhere(token) is None
