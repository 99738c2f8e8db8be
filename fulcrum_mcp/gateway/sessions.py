"""Sessions of the handshake era, toward clients: sealed tokens that hold the upstreams' own session ids.

A token is bound to its principal and says all that is needed to go on; what is kept here beside it (open requests,
events for clients that come back) is bounded and may be lost.
"""

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, UnsetType

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.gateway.catalog import ToolEntry
from fulcrum_mcp.gateway.pending import Pending, owner_of
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.gateway.upcall import Via
from fulcrum_mcp.gateway.wire import same_id
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["Replay", "Session", "Sessions"]

_PURPOSE: Final = b"session"
_MAX_SESSIONS: Final = 10_000
_MAX_REPLAYS: Final = 32
_MAX_EVENTS: Final = 1_000
_MAX_ANSWERS: Final = 16
_MAX_ANSWER: Final = 256 * 1024
_MAX_BYTES: Final = 4 * 1024 * 1024
_ROOM: Final = 32 * 1024 * 1024
"""Bytes for the kept events of all sessions."""
_EVENT: Final = 200
"""Bytes that an event takes beside its data, about."""


class Room:
    """What the events kept for all clients may take together; the streams that began first make room."""

    def __init__(self, most: int = _ROOM) -> None:
        self.size = 0
        self._most = most
        self._taken: dict[Replay, None] = {}

    def take(self, replay: "Replay", size: int) -> None:
        """These bytes more (or less) are kept by a stream."""
        self.size += size
        if size > 0:
            self._taken[replay] = None
            while self.size > self._most and len(self._taken) > 1:
                next(iter(self._taken)).forget()

    def leave(self, replay: "Replay") -> None:
        """A stream keeps nothing any more."""
        self._taken.pop(replay, None)


class Replay:
    """The events of one stream: a client that lost it reads on from the last event it saw."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = Room() if room is None else room
        self._events: deque[ServerSentEvent] = deque()
        self._size = 0
        self._first = 0
        self._changed = asyncio.Event()
        self.ended = False
        self.answered = False

    def add(self, event: ServerSentEvent) -> None:
        """Keep an event; the oldest go when there are too many."""
        self._events.append(event)
        before = self._size
        self._size += len(event.data) + _EVENT
        while len(self._events) > _MAX_EVENTS or (self._size > _MAX_BYTES and len(self._events) > 1):
            self._size -= len(self._events.popleft().data) + _EVENT
            self._first += 1
        self._room.take(self, self._size - before)
        self._wake()

    def forget(self) -> None:
        """Keep none of the events so far: others need the room, or the session has ended."""
        self._room.take(self, -self._size)
        self._room.leave(self)
        self._first += len(self._events)
        self._size = 0
        self._events.clear()

    def end(self) -> None:
        """No more events will come."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def position(self, event_id: str) -> int | None:
        """Where to go on after this event, or None if it is not of this stream (or too old)."""
        for offset, event in enumerate(self._events):
            if event.id == event_id:
                return self._first + offset + 1
        return None

    async def follow(self, position: int) -> AsyncIterator[ServerSentEvent]:
        """Events from a position on, live until the stream's end."""
        while True:
            changed = self._changed
            while position < self._first + len(self._events):
                position = max(position, self._first)
                event = self._events[position - self._first]
                position += 1
                yield event
            if self.ended:
                return
            await changed.wait()


class Session:
    """One client's session: how to reach each upstream, and what is under way."""

    def __init__(self, token: str, peers: Mapping[str, Via], client: str | None, room: Room | None = None) -> None:
        self.token = token
        self._room = Room() if room is None else room
        self.peers = dict(peers)
        self.client = client
        self.open: dict[str | int, Pending] = {}
        self.lists: dict[str, dict[str, list[dict[str, Any]]]] = {}
        """What each server listed in this session last, by the result's member name."""
        self.replays: deque[Replay] = deque(maxlen=_MAX_REPLAYS)
        self._learned: dict[str, tuple[int, dict[str, ToolEntry]]] = {}
        self._answers: deque[tuple[str, str | int, bytes]] = deque(maxlen=_MAX_ANSWERS)

    def learned(self, server: str, announced: int) -> dict[str, ToolEntry]:
        """The tools that a server shows otherwise in this session, since it last `announced` a change."""
        known = self._learned.get(server)
        if known is None or known[0] != announced:
            known = self._learned[server] = (announced, {})
        return known[1]

    def record(self) -> Replay:
        """Begin to keep the events of a new stream."""
        replay = Replay(self._room)
        if len(self.replays) == _MAX_REPLAYS:
            self.replays[0].forget()
        self.replays.append(replay)
        return replay

    def keep(self, pending: Pending, text: bytes) -> None:
        """Keep an answer that came on a resumed stream: the client may lose that stream too."""
        if len(text) <= _MAX_ANSWER:
            self._answers.append((pending.server, pending.request_id, text))

    def kept(self, server: str, raw_id: Raw | UnsetType) -> tuple[str | int, bytes] | None:
        """What was kept of the answer that an upstream sends again: the request's id and the text."""
        for kept_server, request_id, text in self._answers:
            if kept_server == server and same_id(raw_id, request_id):
                return request_id, text
        return None

    def resume(self, event_id: str) -> tuple[Replay, int] | None:
        """The kept stream that holds this event, if the rest can be served from here."""
        for replay in self.replays:
            position = replay.position(event_id)
            if position is not None and (replay.answered or not replay.ended):
                return replay, position
        return None


class Sessions:
    """All sessions known here."""

    def __init__(self, sealer: Sealer, seat: Seat | None = None) -> None:
        self._sealer = sealer
        self._seat = Seat() if seat is None else seat
        self._known: OrderedDict[str, tuple[str, Session]] = OrderedDict()
        self.room = Room()
        self._gone: list[Session] = []
        """Sessions that ended or were crowded out with requests still open: those are settled yet."""

    def create(self, principal: Principal, peers: Mapping[str, Via], client: str | None) -> Session:
        """A new session, bound to its principal."""
        fields: dict[str, Any] = {
            "o": owner_of(principal),
            "p": {name: (via.version, via.session) for name, via in peers.items()},
            "c": client,
            "n": os.urandom(8).hex(),
        }
        if self._seat.shared:
            fields["w"] = self._seat.number
        content = msgspec.json.encode(fields)
        session = Session(self._sealer.seal(_PURPOSE, content), peers, client, self.room)
        self._keep(owner_of(principal), session)
        return session

    def find(self, token: str, principal: Principal) -> Session | None:
        """The session of a token; None for a foreign, forged or unknown one."""
        known = self._known.get(token)
        if known is not None:
            self._known.move_to_end(token)
            return known[1] if known[0] == owner_of(principal) else None
        content = self._sealer.unseal(_PURPOSE, token)
        if content is None:
            return None
        fields = msgspec.json.decode(content)
        if fields["o"] != owner_of(principal):
            return None
        peers = {name: Via(version, session) for name, (version, session) in fields["p"].items()}
        session = Session(token, peers, fields["c"], self.room)
        self._keep(fields["o"], session)
        return session

    def elsewhere(self, token: str) -> int | None:
        """The sibling that keeps the session of a token; None: this worker does, or it is no token of ours."""
        if not self._seat.shared or token in self._known:
            return None
        content = self._sealer.unseal(_PURPOSE, token)
        return None if content is None else self._seat.elsewhere(msgspec.json.decode(content).get("w"), token)

    def forget(self, session: Session) -> None:
        """The session has ended."""
        if self._known.pop(session.token, None) is not None:
            self._dropped(session)

    def _dropped(self, session: Session) -> None:
        for replay in session.replays:
            replay.forget()
        if session.open:
            self._gone.append(session)

    def lost(self, before: float) -> list[Pending]:
        """Take out the requests whose stream ended before this moment and that no other stream has answered."""
        found: list[Pending] = []
        for session in (*(session for _, session in self._known.values()), *self._gone):
            for request_id, pending in list(session.open.items()):
                if pending.lost_at is not None and pending.lost_at < before:
                    found.append(session.open.pop(request_id))
        self._gone = [session for session in self._gone if session.open]
        return found

    def _keep(self, owner: str, session: Session) -> None:
        self._known[session.token] = (owner, session)
        while len(self._known) > _MAX_SESSIONS:
            _, (_, session) = self._known.popitem(last=False)
            self._dropped(session)
