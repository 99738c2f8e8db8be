"""Governing one call: decide, reserve, record. Only what comes out of here as a `Ticket` may be forwarded.

`judge` returns a ticket (the decision is durable) or a `Denial`, both values; every fault on the way is a denial.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import structlog

from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.budget import Outcome, Refused, Reserve, Reserved
from fulcrum_mcp.core.budget_text import refusal_text
from fulcrum_mcp.core.call import Call, Principal
from fulcrum_mcp.core.decision import Decision, Reason, Verdict, combine
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.core.redact import has_secret_key, mask_secrets, may_hold_secret, redact
from fulcrum_mcp.core.switch import KillSwitch, stop_reason
from fulcrum_mcp.errors import FulcrumError, Invalid, Unavailable
from fulcrum_mcp.gateway.denial import Denial, told
from fulcrum_mcp.gateway.ids import new_id, now_ns
from fulcrum_mcp.gateway.journal import Journal
from fulcrum_mcp.gateway.listing import ListLaw
from fulcrum_mcp.gateway.policy_input import policy_document, redacted_document
from fulcrum_mcp.gateway.records import decided_draft
from fulcrum_mcp.gateway.renewal import RESERVATION_TTL
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.snapshot import Snapshot, SnapshotHolder
from fulcrum_mcp.gateway.ticket import Judged, Ticket, amounts_of, scopes_of, subject_of
from fulcrum_mcp.gateway.watched import switch_on
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import BudgetLedger, History, HistoryView

__all__ = ["Governor"]

_log = structlog.get_logger("fulcrum.govern")

_RETRY: Final = 1
_COMBINED: Final = 256
_NOTHING: Final = b"{}"


class Governor:
    """The one way from a call to a decision."""

    def __init__(
        self,
        holder: SnapshotHolder,
        journal: Journal,
        ledger: BudgetLedger,
        history: History,
        settler: Settler,
        mac_key: Callable[[str], bytes],
    ) -> None:
        self._holder = holder
        self._journal = journal
        self._ledger = ledger
        self._history = history
        self._mac_key = mac_key
        self.settler = settler
        self.law = ListLaw()
        self._combined: dict[tuple[int, ...], tuple[Sequence[Verdict], Decision]] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that a call starting now keeps to its end."""
        return self._holder.current

    async def judge(self, call: Call, snapshot: Snapshot, root: Ticket | None = None) -> Ticket | Denial:
        """Decide, reserve and record. With `root` (the ticket of leg 0) nothing is charged a second time."""
        started = time.perf_counter_ns()
        stopped = self._stopping(call)
        if stopped is not None:
            snapshot = self._holder.current
        arguments = encode(call.arguments)
        document = _NOTHING
        retry: int | None = None
        try:
            refusal = _stop(stopped) if stopped is not None else await self._refusal(call, snapshot)
            if refusal is None:
                document = policy_document(
                    call,
                    arguments,
                    labels=snapshot.labels.get(call.server, {}),
                    history=await self._read_history(call, snapshot),
                    remaining=await self._read_remaining(call, snapshot),
                )
                decision = await self._decide(document, snapshot)
            else:
                decision = refusal
        except FulcrumError as fault:
            decision = _denied("unavailable", told(fault))
            retry = _RETRY if isinstance(fault, Unavailable) else None
        except Exception:  # noqa: BLE001 - fail closed: whatever it is, the call is denied, and its denial recorded
            _log.exception("call not judged", call=call.id)
            decision = _denied("unavailable", f"the call could not be judged; the gateway's log knows {call.id}")
        ticket = Ticket(call, snapshot, decision, f"dec_{new_id()}", document)
        ticket.started_ns = started
        ticket.root = root
        return await self._admit(ticket, arguments, retry)

    def _stopping(self, call: Call) -> KillSwitch | None:
        """The kill switch that stops a call now, whichever snapshot it began with."""
        switches = self._holder.current.switches
        return switches.stopping(scopes_of(call)) if switches.switches else None

    def stopping(self, principal: Principal, server: str) -> KillSwitch | None:
        """The kill switch that stops now whatever this principal says to a server; empty: to none in particular."""
        return switch_on(self._holder.current.switches, principal, server)

    async def stop(self, call: Call, switch: KillSwitch) -> Denial:
        """Deny, and record, what is judged by nothing but kill switches."""
        ticket = Ticket(call, self._holder.current, _stop(switch), f"dec_{new_id()}", _NOTHING)
        ticket.started_ns = time.perf_counter_ns()
        denied = await self._admit(ticket, encode(call.arguments), None)
        assert isinstance(denied, Denial)
        return denied

    async def _refusal(self, call: Call, snapshot: Snapshot) -> Decision | None:
        """What is refused before any policy sees the arguments."""
        if call.principal.require_envelope and call.context.envelope is None:
            return _denied("envelope_required", "this key may call only inside an envelope; name one")
        law, where = self.law, (snapshot, call.principal, call.context, call.server)
        if call.tool is not None:
            listed = await law.tool(*where, call.tool)
        elif call.method in ("prompts/get", "resources/read"):
            listed = await law.named(*where, call.method.split("/", 1)[0].removesuffix("s"), call.target)
        elif call.method == "tools/call":
            return _denied("unknown_tool", f"server {call.server!r} offers no tool {call.target!r}")
        else:
            return None
        if listed:
            return None
        return _denied("not_listed", f"{call.target!r} is not available to you on server {call.server!r}")

    async def _decide(self, document: bytes, snapshot: Snapshot) -> Decision:
        if len(document) > snapshot.limits.max_input:
            limit = snapshot.limits.max_input
            return _denied("input_too_large", f"the call is larger than policies may judge ({limit} bytes)")
        verdicts = await snapshot.engine.evaluate("call", document)
        known = self._combined.get(tuple(map(id, verdicts)))
        if known is None:
            # Engines hand out one verdict for the same words; those kept here stay alive, and so their ids theirs.
            known = (verdicts, combine(verdicts, "call"))
            if len(self._combined) >= _COMBINED:
                self._combined.clear()
            self._combined[tuple(map(id, verdicts))] = known
        return known[1]

    async def _read_history(self, call: Call, snapshot: Snapshot) -> HistoryView | None:
        if not snapshot.engine.info.reads_history:
            return None
        view: HistoryView = await self._journal.run(
            lambda: self._history.read(call.principal.tenant, subject_of(call)),
        )
        return view

    async def _read_remaining(self, call: Call, snapshot: Snapshot) -> dict[str, int] | None:
        """What is left by amount: the least over all matching budgets. Advisory; only the ledger enforces."""
        if not snapshot.engine.info.reads_budget:
            return None
        matches = snapshot.matcher(scopes_of(call))
        found = await self._journal.run(lambda: self._ledger.peek(matches, now_ns()))
        remaining: dict[str, int] = {}
        for item in found:
            remaining[item.amount] = min(item.left, remaining.get(item.amount, item.left))
        return remaining

    async def _admit(self, ticket: Ticket, arguments: bytes, retry: int | None) -> Ticket | Denial:
        """Reserve and record. `retry`: after how many seconds a call that could not be judged may be sent again."""
        decided = time.perf_counter_ns()
        call = ticket.call
        at = now_ns()
        reserve: Reserve | None = None
        if ticket.decision.effect == "allow" and ticket.root is None:
            matches = tuple(ticket.snapshot.matcher(scopes_of(call)))
            ticket.amounts = amounts_of(ticket.decision.cost)
            if matches:  # no budget, no need of the ledger
                reserve = Reserve(
                    call.id,
                    call.leg,
                    call.principal.tenant,
                    self._journal.writer,
                    matches,
                    ticket.amounts,
                    at,
                    RESERVATION_TTL,
                )
        denied: list[Denial] = []
        decided_us = (decided - ticket.started_ns) // 1000

        def build(outcome: Outcome | None) -> RecordDraft:
            decision = _after_ledger(ticket.decision, outcome)
            if decision.effect != "allow":
                after = (outcome.retry_after or None) if isinstance(outcome, Refused) else retry
                denied.append(Denial(ticket.decision_id, decision.effect, decision.reasons, after))
            return decided_draft(
                call,
                ticket.decision_id,
                decision,
                at=at,
                snapshot=ticket.snapshot.revision,
                reserve=reserve,
                held=isinstance(outcome, Reserved) and not outcome.repeated,
                arguments_mac=mac(self._mac_key(call.principal.tenant), arguments),
                inputs=_inputs(ticket, arguments),
                duration_us=decided_us,
            )

        try:
            outcome = await self._journal.admit(reserve, build, lambda outcome: self._abandon(ticket, outcome))
        except Unavailable as fault:
            return _unrecorded(ticket, fault)
        if denied:
            return denied[0]
        ticket.reserved = outcome is not None
        if ticket.snapshot.engine.info.reads_history or ticket.decision.taints:
            unremembered = await self._remember(ticket)
            if unremembered is not None:
                return unremembered
        stopped = self._stopping(call)
        if stopped is not None:  # thrown while this call was judged
            denial = Denial(ticket.decision_id, "deny", (stop_reason(stopped),))
            self.settler.finish(ticket, "cancelled", sent=False, is_error=True, judged=Judged(denial=denial))
            return denial
        ticket.timings = (decided_us, (time.perf_counter_ns() - decided) // 1000)
        self.settler.in_flight.enter(ticket)
        return ticket

    async def _remember(self, ticket: Ticket) -> Denial | None:
        """Count the call and add its taints before it is forwarded; a history that cannot be written denies it."""
        call, at = ticket.call, now_ns()
        tenant, subject = call.principal.tenant, subject_of(call)

        def write() -> None:
            if ticket.snapshot.engine.info.reads_history:
                self._history.count(tenant, subject, f"{call.server}__{call.target}", at)
            if ticket.decision.taints:
                self._history.taint(tenant, subject, ticket.decision.taints, at)

        written = False
        try:
            await self._journal.run(write)
            written = True
        except Unavailable as fault:
            return _unrecorded(ticket, fault)
        finally:
            if not written:
                self.settler.finish(ticket, "cancelled", sent=False)
        return None

    def _abandon(self, ticket: Ticket, outcome: Outcome | None) -> None:
        """The client went while the decision was being recorded: it stands, and the call was never sent."""
        admitted = outcome is None or (isinstance(outcome, Reserved) and not outcome.repeated)
        if ticket.decision.effect == "allow" and admitted:
            ticket.reserved = outcome is not None
            self.settler.finish(ticket, "cancelled", sent=False)


def _denied(code: str, message: str) -> Decision:
    return Decision("deny", (Reason("", "", code, message),))


def _stop(switch: KillSwitch) -> Decision:
    return Decision("deny", (stop_reason(switch),))


def _unrecorded(ticket: Ticket, fault: Unavailable) -> Denial:
    _log.warning("call denied", decision=ticket.decision_id, reason=str(fault))
    reason = Reason("", "", "unavailable", f"the decision could not be recorded: {told(fault)}")
    return Denial(ticket.decision_id, "deny", (reason,), _RETRY)


def _after_ledger(decision: Decision, outcome: Outcome | None) -> Decision:
    if isinstance(outcome, Refused):
        code = "rate_limited" if outcome.amount == "rate" else "budget_exceeded"
        reason = Reason(outcome.budget.name, "", code, refusal_text(outcome))
        return replace(decision, effect="require_approval" if outcome.action == "soft" else "deny", reasons=(reason,))
    if isinstance(outcome, Reserved) and outcome.repeated:
        return _denied("replayed", "this call was admitted before; send it as a new call")
    return decision


def _inputs(ticket: Ticket, arguments: bytes) -> bytes | None:
    """The readable copy of the policy input: redacted by policy, well-known secrets always masked."""
    mode = ticket.snapshot.limits.inputs
    document = ticket.document
    if mode == "none" or document is _NOTHING or len(document) > ticket.snapshot.limits.max_input:
        return None  # what no policy may judge is denied, and must not fill the disk
    if mode == "redacted" and ticket.decision.redactions:
        try:
            value, count = redact(ticket.call.arguments, ticket.decision.redactions, ticket.snapshot.substitute)
        except Invalid:
            return None
        if count:
            document = redacted_document(document, arguments, encode(value))
    if _may_hold_secret(ticket.call, document, arguments):
        masked: Any = mask_secrets(msgspec.json.decode(document))[0]
        return encode(masked)
    return document


_SHORT_NAME: Final = 32
"""A client's name of at most this length is not searched for secrets."""


def _may_hold_secret(call: Call, document: bytes, arguments: bytes) -> bool:
    """Whether the copy has to be searched: for a plain tool call only its arguments are words of others."""
    client = call.context.client
    plain = call.tool is not None and call.responses is None and call.principal.on_behalf_of is None
    plain = plain and (client is None or len(client) <= _SHORT_NAME)
    return may_hold_secret(arguments if plain else document) or has_secret_key(call.arguments) or not plain
