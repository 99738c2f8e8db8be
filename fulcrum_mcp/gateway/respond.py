"""What happens to an upstream's answer before the client sees it: inspect, filter, settle."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from fulcrum_mcp.core.decision import Reason, Redaction
from fulcrum_mcp.core.redact import redact
from fulcrum_mcp.errors import FulcrumError
from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.denial import Denial, denial_message
from fulcrum_mcp.gateway.listing import LIST_METHODS, ListLaw
from fulcrum_mcp.gateway.pending import Pending
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.tasks import TERMINAL, Tasks
from fulcrum_mcp.gateway.ticket import Judged, Ticket
from fulcrum_mcp.gateway.watched import Watched
from fulcrum_mcp.gateway.wire import Peek, WireError, decode_strict, encode, error_message, peek_result, refuse_folded

__all__ = ["Answered", "Responder", "refusal"]

_WITHHELD: Final = 502002
_AT_ONCE: Final = 100
_NAMED_BY: Final = {"prompts": "name", "resources": "uri", "resourceTemplates": "uriTemplate"}


@dataclass(frozen=True, slots=True)
class Answered:
    """The text for the client; `withheld` and `redactions` also hold for what was held back with it."""

    text: bytes
    withheld: bool = False
    redactions: Sequence[Redaction] = ()


class Responder:
    """Passes each answer through what its request calls for."""

    def __init__(self, settler: Settler, law: ListLaw, rounds: Rounds, tasks: Tasks) -> None:
        self._settler = settler
        self._law = law
        self._rounds = rounds
        self._tasks = tasks

    async def answer(self, pending: Pending, catalog: Catalog, text: bytes, peek: Peek) -> Answered:
        """The answer as the client may see it. `text` is a response to `pending`; it is settled when this returns."""
        if pending.ticket is not None:
            known = self._stopped(pending, pending.ticket)
            return known or await self._governed(pending, pending.ticket, text, peek)
        if pending.task is not None:
            return await self._task(pending, pending.task, text, peek)
        if peek.error is not UNSET and peek.result is UNSET:
            return Answered(text)
        if pending.method in LIST_METHODS:
            return await self._listed(pending, catalog, text)
        if pending.method == "tasks/list":
            return self._own_tasks(pending, text)
        return Answered(text)

    async def _governed(self, pending: Pending, ticket: Ticket, text: bytes, peek: Peek) -> Answered:
        failed = peek.error is not UNSET
        raw = _raw(peek)
        judged: Judged | None = None
        if ticket.inspects:
            inspected = await self._inspect(pending, ticket, text, raw, failed=failed)
            stopped = self._stopped(pending, ticket)
            if stopped is not None or inspected.withheld:
                return stopped or inspected.answered
            judged, text, raw = inspected.judged, inspected.answered.text, inspected.raw
        if failed:
            self._settler.finish(ticket, "error", is_error=True, result=raw, judged=judged)
            return _answered(text, judged)
        seen = peek_result(raw)
        if pending.modern and seen.resultType == "input_required":
            state = self._rounds.suspend(ticket, seen.requestState)
            return _answered(_with_state(text, state), judged)
        task = _task_id(seen.task) or (seen.taskId if seen.resultType == "task" else None)
        if isinstance(task, str):
            self._tasks.park(ticket, task)
            return _answered(text, judged)
        is_error = seen.isError is True
        self._settler.finish(ticket, "error" if is_error else "ok", is_error=is_error, result=raw, judged=judged)
        return _answered(text, judged)

    async def _inspect(
        self, pending: Pending, ticket: Ticket, text: bytes, raw: bytes, *, failed: bool, keep: bool = False
    ) -> "_Inspected":
        """Judge a result (or an error, shown to policy as `{"error": ...}`); `keep`: the call goes on when withheld."""
        try:
            _refuse_twins(text)
            judged = await self._settler.inspect(ticket, b'{"error":' + raw + b"}" if failed else raw)
        except WireError as fault:
            reason = Reason("", "", "result_not_judged", f"the answer could be read in two ways: {fault.message}")
            judged = Judged(denial=Denial(ticket.decision_id, "deny", (reason,)))
        if judged.denial is not None:
            if not keep:
                self._settler.finish(ticket, "withheld", is_error=True, result=raw, judged=judged)
            return _Inspected(Answered(refusal(pending, ticket, judged.denial), withheld=True), judged, raw)
        if judged.text is not None:
            member = "error" if failed else "result"
            raw = msgspec.json.decode(judged.text, type=dict[str, Raw])["error"] if failed else judged.text
            raw = bytes(raw)
            text = _with_member(text, member, raw)
        return _Inspected(Answered(text), judged, raw)

    @staticmethod
    def _stopped(pending: Pending, ticket: Ticket) -> Answered | None:
        """What the client gets of a call that a kill switch has ended, whatever its upstream says."""
        if ticket.stopped is None:
            return None
        return Answered(refusal(pending, ticket, ticket.stopped), withheld=True)

    async def _listed(self, pending: Pending, catalog: Catalog, text: bytes) -> Answered:
        """Leave out what the principal may not see; learn what it is shown."""
        member, kind = LIST_METHODS[pending.method]
        try:
            document, _ = decode_strict(text)
            items = document["result"][member]
            shown = await self.visible(pending, catalog, kind, items)
        except (WireError, KeyError, TypeError, AttributeError, FulcrumError) as fault:
            told = f"upstream {pending.server}: the list could not be judged ({fault})"
            return Answered(error_message(pending.request_id, _WITHHELD, told))
        if len(shown) != len(items):
            document["result"][member] = shown
        result = document["result"]
        if result.get("cacheScope") == "public":
            result["cacheScope"] = "private"
        elif len(shown) == len(items):
            return Answered(text)
        return Answered(encode(document))

    async def visible(self, pending: Pending, catalog: Catalog, kind: str, items: Sequence[Any]) -> list[Any]:
        """Those of a list's entries that the list law shows to this principal."""
        snapshot, principal, context = pending.snapshot, pending.principal, pending.context
        shown: list[Any] = []
        if kind == "tool":
            entries = catalog.learn(items, pending.mine)
            if await catalog.sure():
                entries = catalog.learn(items, pending.mine)
            for number, (item, entry) in enumerate(zip(items, entries, strict=True)):
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)  # a long list must not hold up the calls of others
                if entry is not None and await self._law.tool(snapshot, principal, context, pending.server, entry.tool):
                    shown.append(item)
            return shown
        key = _NAMED_BY[LIST_METHODS[pending.method][0]]
        for number, item in enumerate(items):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            name = item.get(key)
            if isinstance(name, str) and await self._law.named(
                snapshot, principal, context, pending.server, kind, name
            ):
                shown.append(item)
        return shown

    async def _task(self, pending: Pending, task_id: str, text: bytes, peek: Peek) -> Answered:
        """The state or the result of a task: inspected like a result, settled when the task has ended."""
        ticket = self._tasks.find(pending.principal, pending.server, task_id)
        if ticket is None:
            return Answered(text)
        stopped = self._stopped(pending, ticket)
        if stopped is not None:
            return stopped
        raw = _raw(peek)
        judged: Judged | None = None
        if ticket.inspects:
            failed = peek.error is not UNSET
            inspected = await self._inspect(pending, ticket, text, raw, failed=failed, keep=True)
            stopped = self._stopped(pending, ticket)
            if stopped is not None:
                return stopped
            if inspected.withheld:
                self._settler.finish(ticket, "withheld", is_error=True, result=raw, judged=inspected.judged)
                return inspected.answered
            judged, text = inspected.judged, inspected.answered.text
        if peek.error is not UNSET:
            if pending.method == "tasks/result":
                self._settler.finish(ticket, "error", is_error=True, result=raw, judged=judged)
            return _answered(text, judged)
        seen = peek_result(raw)
        status = _status(seen.task) or seen.status
        if pending.method == "tasks/result" or status in TERMINAL:
            failed = status in ("failed", "cancelled") or seen.isError is True
            outcome = "cancelled" if status == "cancelled" else "error" if failed else "ok"
            self._settler.finish(ticket, outcome, is_error=failed, result=raw, judged=judged)
        return _answered(text, judged)

    def _own_tasks(self, pending: Pending, text: bytes) -> Answered:
        try:
            document, _ = decode_strict(text)
            tasks = document["result"]["tasks"]
            document["result"]["tasks"] = [
                task for task in tasks if self._tasks.find(pending.principal, pending.server, _task_id(task))
            ]
        except (WireError, KeyError, TypeError) as fault:
            return Answered(error_message(pending.request_id, _WITHHELD, f"the list of tasks is malformed: {fault}"))
        return Answered(encode(document))


def refusal(pending: Pending, held: Ticket | Watched, denial: Denial) -> bytes:
    """The answer to a request that was denied after it, or the call it is about, was under way."""
    own = pending.task and pending.method != "tasks/result"
    return denial_message(
        pending.request_id,
        denial,
        # What tasks/result brings is the call's own result; what other tasks/* say is the state of a task.
        method=pending.method if own or isinstance(held, Watched) else held.call.method,
        modern=pending.modern,
        structured=pending.structured,
        deny_as=pending.snapshot.limits.deny_as,
    )


@dataclass(frozen=True, slots=True)
class _Inspected:
    answered: Answered
    judged: Judged
    raw: bytes

    @property
    def withheld(self) -> bool:
        return self.answered.withheld


def _refuse_twins(text: bytes) -> None:
    """What is judged is what the client reads: no second `result`, no `Result`. Raises `WireError`."""
    try:
        members = msgspec.json.decode(text, type=dict[str, Raw])
    except (msgspec.MsgspecError, ValueError) as fault:
        raise WireError(_WITHHELD, str(fault)) from None
    if "result" in members and "error" in members:
        raise WireError(_WITHHELD, "it has a result and an error")
    if encode(members) != text:
        decode_strict(text)
    refuse_folded(members)


def _raw(peek: Peek) -> bytes:
    if peek.error is not UNSET:
        return bytes(peek.error)
    return b"null" if peek.result is UNSET else bytes(peek.result)


def _answered(text: bytes, judged: Judged | None) -> Answered:
    return Answered(text, redactions=() if judged is None else judged.redactions)


def _with_member(text: bytes, member: str, raw: bytes) -> bytes:
    members = msgspec.json.decode(text, type=dict[str, Raw])
    members[member] = Raw(raw)
    return encode(members)


def _with_state(text: bytes, state: str) -> bytes:
    members = msgspec.json.decode(text, type=dict[str, Raw])
    result = msgspec.json.decode(members["result"], type=dict[str, Raw])
    result["requestState"] = Raw(encode(state))
    members["result"] = Raw(encode(result))
    return encode(members)


def _task_id(task: object) -> str | None:
    if isinstance(task, dict) and isinstance(task.get("taskId"), str):
        return str(task["taskId"])
    return None


def _status(task: object) -> object:
    return task.get("status") if isinstance(task, dict) else None


def redact_text(text: bytes, redactions: Sequence[Redaction], pending: Pending) -> bytes | None:
    """A notification that was held back with a redacted result: the same patterns go; None if that fails."""
    patterns = [item for item in redactions if item.pattern is not None]
    try:
        value, _ = decode_strict(text)
        redacted, _ = redact(value, patterns, pending.snapshot.substitute)
    except (WireError, FulcrumError):
        return None
    return encode(redacted)
