"""Relaying one stream of an upstream to a client: each answer passes the responder, the rest passes as it is.

An inspected call holds back its answer and the notifications before it until the result was judged.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from msgspec import UNSET

from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.denial import tool_error
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.respond import Answered, Responder, redact_text, refusal
from fulcrum_mcp.gateway.sessions import Replay, Session
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.ticket import Ticket
from fulcrum_mcp.gateway.watched import Watched
from fulcrum_mcp.gateway.wire import Peek, WireError, error_message, peek_message, same_id
from fulcrum_mcp.ports import ServerSentEvent, UpstreamReply

__all__ = ["UPSTREAM_FAILED", "Relay", "Rename", "failure_message"]

Rename = Callable[[ServerSentEvent, Peek | None], ServerSentEvent]

_log = structlog.get_logger("fulcrum.relay")

UPSTREAM_FAILED: Final = 502001
_MAX_HELD: Final = 1000
_SILENT: Final = frozenset(("notifications/resources/updated", "notifications/cancelled"))
"""Notifications that tell nothing of a call's result; nor do those of changed lists."""


_closing: Final[set["asyncio.Future[None]"]] = set()


def failure_message(pending: Pending, text: str) -> bytes:
    """The answer to a request whose upstream failed: a tool error the model can read, or a JSON-RPC error."""
    data = {"server": pending.server, "reason": text}
    if pending.method == "tools/call":
        return tool_error(pending.request_id, text, data, modern=pending.modern, structured=pending.structured)
    return error_message(pending.request_id, UPSTREAM_FAILED, text, data)


@dataclass(slots=True)
class Relay:
    """One stream. `pending` is the request it answers (None for a stream a client listens on)."""

    reply: UpstreamReply
    catalog: Catalog
    responder: Responder
    settler: Settler
    pending: Pending | None
    session: Session | None
    rename: Rename | None = None
    """Makes event ids and the ids of server-to-client requests unique among several upstreams."""
    replay: Replay | None = None
    resumed: bool = False
    """The rest of a stream that the client lost: the upstream may send again what was answered before."""
    held: Ticket | Watched | None = None
    """What a kill switch ends: the call that the request is about (its own, or its task's), or else this stream."""
    repeats: bool = False
    """Policies judge results, and this stream may repeat what was said beside one: held until an answer tells."""
    _identified: bool = False
    _done: bool = False
    """The request was answered, or it is over."""
    _held: list[ServerSentEvent] = field(default_factory=list[ServerSentEvent])
    _result: Answered | None = None
    _waiter: "asyncio.Task[object] | None" = None
    """Who waits for the upstream at this moment."""
    _told: list[str | int] = field(default_factory=list[str | int])
    """The requests that were answered on this resumed stream."""

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """The events for the client; `close` must be called after them, or instead."""
        failure = f"upstream {self.catalog.name}: ended the stream without an answer"
        heard = self.reply.events()
        try:
            while not self._stopped and (found := await self._next(heard)) is not None:
                for ready in found:
                    yield ready
        except UpstreamFailed as fault:
            failure = str(fault)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopped or task is None or task.uncancel():
                raise
        pending = self.pending
        if pending is None or self._done:
            return
        if self._stopped:
            yield self._last_words(pending)
            return
        resumable = self._resumable(pending)
        self._finish("outcome_unknown", resumable=resumable)
        if not resumable:
            yield ServerSentEvent(data=failure_message(pending, failure))

    async def _next(self, heard: AsyncIterator[ServerSentEvent]) -> list[ServerSentEvent] | None:
        """What the client gets for the next event; None at the end of the stream."""
        self._waiter = asyncio.current_task()
        try:
            event = await anext(heard, None)
            return None if event is None else await self._pass(event)
        finally:
            self._waiter = None

    @property
    def _stopped(self) -> bool:
        return self.held is not None and self.held.stopped is not None

    def stop(self) -> None:
        """A kill switch has ended it: the upstream is given up; to a request the next event is the denial."""
        if self._waiter is not None:
            self._waiter.cancel()  # ends its wait for the upstream only: see `events`
        elif self.pending is not None and self.pending.lost_at is not None and self.replay is not None:
            self.replay.add(self._final(self.pending))
            self.replay.answered = True
        else:
            _closing.add(task := asyncio.ensure_future(self.reply.close()))
            task.add_done_callback(_closing.discard)

    def _last_words(self, pending: Pending) -> ServerSentEvent:
        """The denial, as the end of this stream and of what is kept of it."""
        self._done = True
        if self.session is not None:
            self.session.open.pop(pending.request_id, None)
        final = self._final(pending)
        if self.replay is not None:
            self.replay.add(final)
            self.replay.answered = True
        return final

    def _final(self, pending: Pending) -> ServerSentEvent:
        assert self.held is not None
        assert self.held.stopped is not None
        return ServerSentEvent(data=refusal(pending, self.held, self.held.stopped))

    async def close(self) -> None:
        """Give the stream up; a request that was not answered by then is cancelled. Idempotent."""
        try:
            await self.reply.close()
        finally:
            lost = self.pending is not None and self.pending.lost_at is not None
            if isinstance(self.held, Watched):
                self.settler.watched.leave(self.held)
            elif self.held is not None and self.stop in self.held.halts and not lost:
                self.held.halts.remove(self.stop)
            if self.replay is not None:
                self.replay.end()
            if self.pending is not None and not self._done and self.pending.lost_at is None:
                self._finish("cancelled", resumable=False)

    async def _pass(self, event: ServerSentEvent) -> list[ServerSentEvent]:
        """What the client gets for one event of the upstream."""
        peek = self._look(event)
        if peek is None:
            quiet = event.comment and (self.repeats or self._inspects() or self._overhears())
            return [self._out(replace(event, data=b"") if quiet else event, None)]
        if peek.method is not UNSET:
            return self._told_by(event, peek)
        request = self._request_of(peek)
        if request is None:
            return self._unasked(event, peek)
        result = await self.responder.answer(request, self.catalog, event.data, peek)
        ready: list[ServerSentEvent] = []
        if request is self.pending:
            self._done = True
            if self.replay is not None:
                self.replay.answered = True
            if self.session is not None:
                self.session.open.pop(request.request_id, None)
            held, self._held, self._result = self._held, [], result
            ready = [self._out(kept, None) for kept in self._cleared(held, result, request)]
        elif self.resumed and self.session is not None:
            self.session.keep(request, result.text)
            self._told.append(request.request_id)
            held, self._held = self._held, []
            ready = [self._out(kept, None) for kept in self._cleared(held, result, request)]
        ready.append(self._out(replace(event, data=result.text), None))
        return ready

    def _told_by(self, event: ServerSentEvent, peek: Peek) -> list[ServerSentEvent]:
        """A notification or a request of the upstream."""
        method = str(peek.method)
        if method.endswith("/list_changed"):
            self.catalog.stale()
        if peek.id is UNSET:
            if self._inspects():
                return self._beside(event, peek)
            if method not in _SILENT and not method.endswith("/list_changed"):
                if self.repeats:
                    return self._beside(event, peek)
                if self._overhears():
                    _log.warning("what may tell of an inspected call dropped", server=self.catalog.name)
                    return []
        return [self._out(event, peek)]

    def _overhears(self) -> bool:
        """True while the session has a call whose result is yet to be judged: what is said here may be about it."""
        return self.session is not None and any(
            item.server == self.catalog.name and item.ticket is not None and item.ticket.inspects
            for item in self.session.open.values()
        )

    def _inspects(self) -> bool:
        pending = self.pending
        return pending is not None and pending.ticket is not None and pending.ticket.inspects

    def _beside(self, event: ServerSentEvent, peek: Peek) -> list[ServerSentEvent]:
        """A notification beside an inspected result: held back before it, and then treated as the result was."""
        if self._result is not None and self.pending is not None:
            return [self._out(kept, peek) for kept in self._cleared([event], self._result, self.pending)]
        if len(self._held) < _MAX_HELD:
            self._held.append(event)
        else:
            _log.warning("too many notifications before a result: one dropped", server=self.catalog.name)
        return []

    def _look(self, event: ServerSentEvent) -> Peek | None:
        if not event.data or event.comment:
            return None
        try:
            peek = peek_message(event.data)
        except WireError as fault:
            msg = f"upstream {self.catalog.name}: {fault.message}"
            raise UpstreamFailed(msg, sent=True) from None
        if peek.method is not UNSET and (peek.result is not UNSET or peek.error is not UNSET):
            msg = f"upstream {self.catalog.name}: a message is both a question and an answer"
            raise UpstreamFailed(msg, sent=True)
        return peek

    def _request_of(self, peek: Peek) -> Pending | None:
        """Which request a response answers: this stream's, or one of the session's that lost its stream."""
        if self.pending is not None and same_id(peek.id, self.pending.request_id):
            return None if self._done else self.pending
        if self.session is None:
            return None
        for request_id, pending in self.session.open.items():
            if pending.server == self.catalog.name and same_id(peek.id, request_id):
                del self.session.open[request_id]
                return pending
        return None

    def _unasked(self, event: ServerSentEvent, peek: Peek) -> list[ServerSentEvent]:
        """An answer that no request waits for: dropped, unless the client may have missed it with its last stream."""
        self._held.clear()  # how that answer was judged is not known here
        kept = self.session.kept(self.catalog.name, peek.id) if self.resumed and self.session is not None else None
        if kept is None or kept[0] in self._told:
            _log.warning("answer to nothing dropped", server=self.catalog.name)
            return []
        self._told.append(kept[0])
        return [self._out(replace(event, data=kept[1]), None)]

    @staticmethod
    def _cleared(held: list[ServerSentEvent], result: Answered, pending: Pending) -> list[ServerSentEvent]:
        """What the client may see of it: nothing with a withheld result, redacted with a redacted one."""
        if result.withheld:
            return []
        if not result.redactions:
            return held
        texts = [(event, redact_text(event.data, result.redactions, pending)) for event in held]
        return [replace(event, data=text) for event, text in texts if text is not None]

    def _out(self, event: ServerSentEvent, peek: Peek | None) -> ServerSentEvent:
        if event.id is not None:
            self._identified = True
        if self.rename is not None:
            event = self.rename(event, peek)
        if self.replay is not None and event.id is not None:
            self.replay.add(event)
        return event

    def _resumable(self, pending: Pending) -> bool:
        """A request whose stream ended without an answer may be answered on another one, if events have ids."""
        return self.session is not None and self._identified and not pending.modern and not pending.cancelled

    def _finish(self, outcome: str, *, resumable: bool) -> None:
        """The stream is over without its answer."""
        pending = self.pending
        if pending is None:
            return
        if resumable:
            pending.lost_at = time.monotonic()
            return
        self._done = True
        if self.session is not None:
            self.session.open.pop(pending.request_id, None)
        if pending.ticket is not None:
            self.settler.finish(pending.ticket, "cancelled" if pending.cancelled else outcome, is_error=True)
