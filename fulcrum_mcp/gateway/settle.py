"""After the answer: inspect the result, settle the reservation, record how the call ended."""

import time
from collections.abc import Callable, Mapping

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Amounts, Commit
from fulcrum_mcp.core.decision import Decision, Reason, combine
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.core.redact import redact
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.gateway.denial import Denial, told
from fulcrum_mcp.gateway.figures import Figures
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.in_flight import InFlight
from fulcrum_mcp.gateway.journal import Journal, Settlement
from fulcrum_mcp.gateway.policy_input import with_result
from fulcrum_mcp.gateway.records import finished_draft
from fulcrum_mcp.gateway.ticket import FREE, Judged, Ticket, amounts_of, subject_of
from fulcrum_mcp.gateway.tracing import Tracer
from fulcrum_mcp.gateway.watched import Watchlist
from fulcrum_mcp.gateway.wire import WireError, decode_strict, encode
from fulcrum_mcp.ports import History

__all__ = ["Settler"]


class Settler:
    """Ends what `Governor` admitted."""

    def __init__(self, journal: Journal, history: History, mac_key: Callable[[str], bytes]) -> None:
        self._journal = journal
        self._history = history
        self._mac_key = mac_key
        self.in_flight = InFlight()
        self.watched = Watchlist()
        self.figures = Figures()
        self.tracer: Tracer | None = None
        """None: calls are not traced."""

    async def inspect(self, ticket: Ticket, result: bytes) -> Judged:
        """Phase `result`: judge what came back; taints are durable when this returns. A fault withholds it."""
        try:
            limit = ticket.snapshot.limits.max_input
            if len(result) > limit:
                msg = f"it is larger than policies may judge ({limit} bytes)"
                raise Invalid(msg)
            value, canonical = decode_strict(result)
            document = with_result(ticket.document, canonical)
            decision = combine(await ticket.snapshot.engine.evaluate("result", document), "result")
            if decision.taints:
                tenant, subject = ticket.call.principal.tenant, subject_of(ticket.call)
                await self._journal.run(lambda: self._history.taint(tenant, subject, decision.taints, now_ns()))
            redacted, count = redact(value, decision.redactions, ticket.snapshot.substitute)
        except (FulcrumError, WireError) as fault:
            reason = Reason("", "", "result_not_judged", f"the result could not be judged: {told(fault)}")
            return Judged(denial=Denial(ticket.decision_id, "deny", (reason,)))
        if decision.effect != "allow":
            denial = Denial(ticket.decision_id, "deny", decision.reasons)
            return Judged(denial=denial, cost=_cost(decision), taints=decision.taints)
        return Judged(
            encode(redacted) if count else None, None, _cost(decision), count, decision.redactions, decision.taints
        )

    def finish(
        self,
        ticket: Ticket,
        outcome: str,
        *,
        sent: bool = True,
        is_error: bool = False,
        result: bytes = b"",
        judged: Judged | None = None,
    ) -> None:
        """Settle and record the end of a call; a call that was never sent costs nothing. Later ends do nothing."""
        if ticket.spent:
            return
        ticket.spent = True
        self.in_flight.leave(ticket)
        root = ticket.root or ticket
        operation: Commit | None = None
        actual: Amounts | None = None
        if root.reserved:
            root.reserved = False
            # A later leg that was never sent does not undo the legs before it.
            charged = sent or root is not ticket
            actual = self._actual(ticket, root, len(result), judged) if charged else FREE
            operation = Commit(root.call.id, root.call.leg, actual, now_ns())
        build = self._finished(ticket, outcome, is_error=is_error, result=result, judged=judged, charged=actual)
        self._journal.settle(Settlement(operation, build))

    def suspend(self, ticket: Ticket) -> None:
        """Record that a leg ended by asking for input; the call's reservation stays open under its root."""
        if not ticket.spent:
            ticket.spent = True
            self.in_flight.leave(ticket)
            self._journal.settle(Settlement(None, self._finished(ticket, "input_required")))

    def give_up(self, root: Ticket) -> None:
        """Settle, at its estimate, a call that was suspended and never came back."""
        if root.reserved:
            root.reserved = False
            self._journal.settle(Settlement(Commit(root.call.id, root.call.leg, None, now_ns()), None))

    @staticmethod
    def _actual(ticket: Ticket, root: Ticket, size: int, judged: Judged | None) -> Amounts:
        """What the call cost: what policies say of the result, else the estimate; bytes and seconds are measured."""
        estimate = root.amounts
        if judged is not None and judged.cost is not None:
            estimate = amounts_of({**estimate._asdict(), **judged.cost})
        elapsed = (time.perf_counter_ns() - ticket.started_ns) // 1_000_000_000
        return estimate._replace(bytes=estimate.bytes or size, seconds=estimate.seconds or elapsed)

    def _finished(
        self,
        ticket: Ticket,
        outcome: str,
        *,
        is_error: bool = False,
        result: bytes = b"",
        judged: Judged | None = None,
        charged: Amounts | None = None,
    ) -> Callable[[], RecordDraft]:
        call = ticket.call
        elapsed_us = (time.perf_counter_ns() - ticket.started_ns) // 1000
        self.figures.ended(call.server, call.method, outcome, elapsed_us)
        if self.tracer is not None and ticket.trace is not None:
            self.tracer.ended(ticket.trace, call, ticket.decision_id, outcome, elapsed_us, ticket.timings)
        cost: Mapping[str, int] = ticket.decision.cost
        if judged is not None and judged.cost is not None:
            cost = judged.cost

        def build() -> RecordDraft:
            return finished_draft(
                call,
                ticket.decision_id,
                outcome=outcome,
                is_error=is_error,
                result_mac=mac(self._mac_key(call.principal.tenant), result) if result else "",
                size=len(result),
                duration_us=elapsed_us,
                cost=cost,
                reasons=judged.denial.reasons if judged is not None and judged.denial is not None else (),
                redacted=judged.count if judged is not None else 0,
                charged=charged,
                taints=judged.taints if judged is not None else (),
            )

        return build


def _cost(decision: Decision) -> Mapping[str, int] | None:
    return decision.cost or None
