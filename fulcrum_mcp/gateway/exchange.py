"""The exchange with one upstream: a client's message in, judged, forwarded as it is, its answer back.

Works on messages, never on typed objects, so that methods and members nobody here knows pass unchanged. A governed
method goes upstream with a ticket or not at all.
"""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fulcrum_mcp.core.switch import stop_reason
from fulcrum_mcp.errors import UpstreamFailed
from fulcrum_mcp.gateway.calling_off import calling_off
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.gate import Gate, mine_of, not_listening, refused, stopped
from fulcrum_mcp.gateway.incoming import Answer, Incoming
from fulcrum_mcp.gateway.methods import GOVERNED, KNOWN
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.relay import UPSTREAM_FAILED, Relay, Rename, failure_message
from fulcrum_mcp.gateway.respond import Responder, refusal
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.tasks import TASK_METHODS, Tasks
from fulcrum_mcp.gateway.ticket import Ticket
from fulcrum_mcp.gateway.watched import Watched
from fulcrum_mcp.gateway.wire import Message, Peek, WireError, error_message, peek_message
from fulcrum_mcp.ports import Upstream, UpstreamReply, UpstreamRequest

__all__ = ["Exchange"]

_INVALID_REQUEST: Final = -32600
_INVALID_PARAMS: Final = -32602
_MAX_OPEN: Final = 1000
_BAD_REQUEST: Final = 400
_ACCEPTED: Final = 202
_NOT_FOUND: Final = 404
_BAD_GATEWAY: Final = 502
_CHALLENGES: Final = (401, 403)
_ERRAND: Final = 5.0
"""Seconds that telling an upstream of a stopped call may take."""
_PASSED_HEADERS: Final = ("retry-after", "allow", "cache-control")


@dataclass(slots=True)
class Exchange:
    """One upstream and everything that stands before it."""

    upstream: Upstream
    catalog: Catalog
    gate: Gate
    settler: Settler
    responder: Responder
    tasks: Tasks
    counted: Counter[str] = field(default_factory=Counter[str])
    """Requests by method, and `forwarded_without_decision`, which stays 0."""
    _errands: set["asyncio.Future[None]"] = field(default_factory=set["asyncio.Future[None]"])

    @property
    def name(self) -> str:
        """The server's name."""
        return self.upstream.name

    async def request(self, incoming: Incoming, message: Message, rename: Rename | None = None) -> Answer:
        """One request: judge what is governed, forward, relay the answer."""
        method = message.method
        governed = method in GOVERNED or method not in KNOWN
        self.counted[method if method in KNOWN or method in GOVERNED else "other"] += 1
        pending = self._pending(incoming, message)
        tracer = self.settler.tracer
        if tracer is not None and governed:
            incoming, message, pending.trace = tracer.begin(incoming, message)
        session = None if incoming.modern else incoming.session
        if session is not None:
            if pending.request_id in session.open or len(session.open) >= _MAX_OPEN:
                return refused(message, _INVALID_REQUEST, "Invalid Request: a request with this id is under way")
            session.open[pending.request_id] = pending
        switch = None if governed else self.gate.stopping(incoming)
        settled = False
        try:
            if method in TASK_METHODS and method != "tasks/list":
                ended = self._about(message, pending, unknown=switch is None)
                if ended is not None:
                    return ended
            if switch is not None:
                return await stopped(self.gate.governor, incoming, message, switch, self.name)
            if governed:
                judged = await self.gate.judge(incoming, message, pending)
                if isinstance(judged, Answer):
                    return judged
                message = judged
            answer = await self._forward(incoming, message, pending, rename)
            settled = answer.events is not None
            return answer
        finally:
            if session is not None and not settled:
                session.open.pop(pending.request_id, None)

    def _about(self, message: Message, pending: Pending, *, unknown: bool) -> Answer | None:
        """Note which task is asked after; the answer where its call was stopped or, with `unknown`, there is none."""
        task = message.params.get("taskId")
        held = self.tasks.find(pending.principal, self.name, task)
        if held is None:
            return refused(message, _INVALID_PARAMS, "Invalid params: no such task") if unknown else None
        pending.task = str(task)
        return None if held.stopped is None else Answer(200, refusal(pending, held, held.stopped))

    async def notify(self, incoming: Incoming, message: Message) -> Answer:
        """A notification or a response of the client. One that names a request's method is refused."""
        if message.kind == "response":
            if incoming.modern:
                return refused(
                    message, _INVALID_REQUEST, "Invalid Request: responses are not accepted here", status=400
                )
            return await self._tell(incoming, message)
        if message.method in GOVERNED or message.method in KNOWN:
            return refused(message, _INVALID_REQUEST, f"Invalid Request: {message.method} needs an id", status=400)
        if message.method == "notifications/cancelled" and incoming.session is not None:
            named = message.params.get("requestId")
            found = incoming.session.open.get(named) if isinstance(named, str | int) else None
            cancelled = None if isinstance(named, bool) else found
            if cancelled is not None:
                cancelled.cancelled = True
        if message.method.startswith("notifications/"):
            return await self._tell(incoming, message)
        pending = self._pending(incoming, message)
        judged = await self.gate.judge(incoming, message, pending)
        if isinstance(judged, Answer) or pending.ticket is None:
            return Answer(_ACCEPTED)
        outcome = "cancelled"
        try:
            answer = await self._pass(incoming, judged)
            outcome = "ok" if answer.status < _BAD_REQUEST else "error"
        finally:
            self.settler.finish(pending.ticket, outcome)
        return answer

    async def _tell(self, incoming: Incoming, message: Message) -> Answer:
        """What no policy judges: dropped where a kill switch stops it, also while the upstream takes its time."""
        if self.gate.stopping(incoming) is not None:
            return Answer(_ACCEPTED)
        with self.settler.watched.halting(incoming.principal, self.name):
            return await self._pass(incoming, message)
        return Answer(_ACCEPTED)

    async def listen(self, incoming: Incoming, rename: Rename | None = None) -> Answer:
        """GET: the stream of a session, or the rest of a lost one."""
        switch = self.gate.stopping(incoming)
        if switch is not None:
            return not_listening(stop_reason(switch))
        session = incoming.session
        last = incoming.header("last-event-id")
        if session is not None and last is not None:
            kept = session.resume(last)
            if kept is not None:
                return Answer(200, events=kept[0].follow(kept[1]))
        with self.settler.watched.halting(incoming.principal, self.name) as held:
            try:
                reply = await self.upstream.send(self._outgoing(incoming, None))
                if reply.streams and reply.status not in _CHALLENGES:
                    relay = Relay(reply, self.catalog, self.responder, self.settler, None, session, rename)
                    relay.resumed = last is not None
                    relay.repeats = relay.resumed and self.gate.governor.snapshot.engine.info.judges_results
                    relay.held, held.halts = held, [relay.stop]
                    return Answer(reply.status, events=relay.events(), close=relay.close)
                return self._plain(reply, await self._body(reply))
            except UpstreamFailed as fault:
                return _unreachable(str(fault))
        return not_listening(*(() if held.stopped is None else held.stopped.reasons))

    async def end(self, incoming: Incoming) -> Answer:
        """DELETE: the client's session ends, and with it what it left open. What is stopped does not hear of it."""
        if self.gate.stopping(incoming) is not None:
            return Answer(200)
        session = incoming.session
        mine = [] if session is None else [item for item in session.open.values() if item.server == self.name]
        before = [item.cancelled for item in mine]
        for pending in mine:
            pending.cancelled = True
        answer = await self._pass(incoming, None)
        for pending, cancelled in zip(mine, before, strict=True):
            if answer.status >= _BAD_REQUEST:
                pending.cancelled = cancelled  # the upstream goes on, and so does the session
            elif pending.ticket is not None:
                self.settler.finish(pending.ticket, "cancelled", is_error=True)
        return answer

    async def _pass(self, incoming: Incoming, message: Message | None) -> Answer:
        """Send what expects no answer of its own."""
        try:
            reply = await self.upstream.send(self._outgoing(incoming, message))
            body = await self._body(reply)
            await reply.close()
        except UpstreamFailed as fault:
            return _unreachable(str(fault))
        return self._plain(reply, body)

    @staticmethod
    async def _body(reply: UpstreamReply) -> bytes:
        """The body of an answer that is none to a request; a stream is given up."""
        if not reply.streams:
            return await reply.read()
        await reply.close()
        return b""

    def _plain(self, reply: UpstreamReply, body: bytes) -> Answer:
        """An answer to what is no request. A client is never told to show an upstream its credentials."""
        if reply.status in _CHALLENGES:
            return _unreachable(self._locked_out(reply))
        return Answer(reply.status, body, headers=_passed(reply))

    def _locked_out(self, reply: UpstreamReply) -> str:
        return f"upstream {self.name}: refused the gateway's credentials (HTTP {reply.status}); check its headers"

    def _pending(self, incoming: Incoming, message: Message) -> Pending:
        return Pending(
            request_id="" if message.id is None else message.id,
            method=message.method,
            server=self.name,
            principal=incoming.principal,
            context=incoming.context,
            snapshot=self.gate.governor.snapshot,
            modern=incoming.modern,
            mine=mine_of(incoming, self.catalog),
        )

    def _outgoing(self, incoming: Incoming, message: Message | None) -> UpstreamRequest:
        headers = incoming.headers
        peer = None if incoming.session is None else incoming.session.peers.get(self.name)
        if peer is not None and peer.session is not None:
            headers = [*headers, (b"mcp-session-id", peer.session.encode())]
        return UpstreamRequest(
            verb=incoming.verb,
            headers=headers,
            message=b"" if message is None else message.raw,
            document=None if message is None else message.document,
            principal=incoming.principal,
        )

    async def _forward(self, incoming: Incoming, message: Message, pending: Pending, rename: Rename | None) -> Answer:
        ticket = pending.ticket
        if ticket is None and (message.method in GOVERNED or message.method not in KNOWN):
            self.counted["forwarded_without_decision"] += 1
            msg = f"{message.method} would have been forwarded without a decision"
            raise RuntimeError(msg)
        began = time.perf_counter_ns()
        held = self._held(pending)
        if isinstance(held, Ticket) and held is ticket:
            held.halts.append(partial(self._call_off, incoming, message, held))
        streams = False
        try:
            reply = await self._ask(incoming, message, pending, held)
            streams = not isinstance(reply, Answer)
        finally:
            if isinstance(held, Watched) and not streams:
                self.settler.watched.leave(held)
        if isinstance(reply, Answer):
            reply.timings = self._timings(ticket, began)
            return reply
        session: Session | None = None if pending.modern else incoming.session
        relay = Relay(reply, self.catalog, self.responder, self.settler, pending, session, rename)
        if session is not None:
            relay.replay = session.record()
        relay.held = held
        held.halts.append(relay.stop)
        return Answer(
            reply.status,
            events=relay.events(),
            close=relay.close,
            headers=_passed(reply),
            detached=not pending.modern,
            timings=self._timings(ticket, began),
            upstream=reply,
        )

    async def _ask(
        self, incoming: Incoming, message: Message, pending: Pending, held: Ticket | Watched
    ) -> UpstreamReply | Answer:
        """The stream that the upstream answers with, or the answer for the client."""
        task = asyncio.current_task()
        assert task is not None
        halt = task.cancel
        held.halts.append(halt)
        try:
            reply = await self.upstream.send(self._outgoing(incoming, message))
            if reply.streams and reply.status not in _CHALLENGES:
                return reply
            return await self._single(pending, reply)
        except (UpstreamFailed, asyncio.CancelledError) as fault:
            answer = self._broken(fault, pending, held, task)
            if answer is None:
                raise
            return answer
        except Exception:
            if pending.ticket is not None:  # what nobody foresaw must not hold a reservation for ever
                self.settler.finish(pending.ticket, "outcome_unknown", is_error=True)
            raise
        finally:
            if halt in held.halts:
                held.halts.remove(halt)

    def _broken(
        self, fault: BaseException, pending: Pending, held: Ticket | Watched, task: "asyncio.Task[Any]"
    ) -> Answer | None:
        """No answer came; None: the client has gone."""
        gone = not isinstance(fault, UpstreamFailed)
        if held.stopped is not None and not (gone and task.cancelling() > 1):
            if task.cancelling():
                task.uncancel()  # the switch cancelled it, not the client
            return Answer(200, refusal(pending, held, held.stopped))
        ticket = pending.ticket
        if isinstance(fault, UpstreamFailed):
            if ticket is not None:
                outcome = "timeout" if fault.timeout else "outcome_unknown" if fault.sent else "error"
                self.settler.finish(ticket, outcome, sent=fault.sent, is_error=True)
            return Answer(200, failure_message(pending, str(fault)))
        if ticket is not None:
            self.settler.finish(ticket, "cancelled", is_error=True)
        return None

    def _held(self, pending: Pending) -> Ticket | Watched:
        """The call that a request is about: its own, or the one whose task it asks after; else the request itself."""
        ticket = pending.ticket
        if ticket is None and pending.task is not None:
            ticket = self.tasks.find(pending.principal, self.name, pending.task)
        if ticket is None or (ticket.spent and pending.task is not None):
            return self.settler.watched.enter(pending.principal, self.name)
        return ticket

    def _call_off(self, incoming: Incoming, message: Message, ticket: Ticket) -> None:
        """Tell the upstream that a call was stopped."""
        told = calling_off(incoming, message, ticket)
        if told is not None:
            errand = asyncio.ensure_future(self._errand(*told))
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)

    async def _errand(self, incoming: Incoming, note: Message) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ERRAND):
                await self._pass(incoming, note)

    def _timings(self, ticket: Ticket | None, began: int) -> tuple[tuple[str, int], ...]:
        upstream = (time.perf_counter_ns() - began) // 1000
        if ticket is None:
            return (("upstream", upstream),)
        self.settler.figures.stage("upstream", upstream)
        return (("policy", ticket.timings[0]), ("journal", ticket.timings[1]), ("upstream", upstream))

    async def _single(self, pending: Pending, reply: UpstreamReply) -> Answer:
        """An answer that is one body."""
        body = await self._body(reply)
        peek = Peek()
        if body:
            try:
                peek = peek_message(body)
            except WireError as fault:
                if reply.status < _BAD_REQUEST:
                    msg = f"upstream {self.name}: {fault.message}"
                    raise UpstreamFailed(msg, sent=True) from None
        if not peek.is_response or reply.status in _CHALLENGES:
            return self._odd(pending, reply)
        answered = await self.responder.answer(pending, self.catalog, body, peek)
        return Answer(reply.status, answered.text, headers=_passed(reply), upstream=reply)

    def _odd(self, pending: Pending, reply: UpstreamReply) -> Answer:
        """An HTTP answer that is no JSON-RPC answer to a request."""
        if pending.ticket is not None:
            self.settler.finish(pending.ticket, "error", is_error=True)
        if reply.status == _NOT_FOUND and not pending.modern:
            return Answer(_NOT_FOUND, error_message(pending.request_id, _INVALID_REQUEST, "Session not found"))
        text = f"upstream {self.name}: answered HTTP {reply.status} without a JSON-RPC answer"
        if reply.status in _CHALLENGES:
            text = self._locked_out(reply)
        return Answer(200, failure_message(pending, text), headers=_passed(reply))


def _passed(reply: UpstreamReply) -> list[tuple[str, str]]:
    headers = reply.headers
    return [(name, headers[name]) for name in _PASSED_HEADERS if name in headers]


def _unreachable(why: str) -> Answer:
    return Answer(_BAD_GATEWAY, error_message(None, UPSTREAM_FAILED, why))
