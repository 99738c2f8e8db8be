"""Calls that need several requests (MRTR): judged on every leg, charged once.

The upstream's `requestState` travels to the client inside our own sealed state, bound to call, leg, principal, target
and arguments. A leg comes back once; a replay, or changed arguments, is a new call. A state not ours is refused.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.switch import SwitchIndex
from fulcrum_mcp.gateway.pending import owner_of
from fulcrum_mcp.gateway.seal import Sealer
from fulcrum_mcp.gateway.seat import Seat
from fulcrum_mcp.gateway.settle import Settler
from fulcrum_mcp.gateway.ticket import Ticket, scopes_of
from fulcrum_mcp.gateway.wire import encode

__all__ = ["Resumed", "Rounds", "StateRefused"]

_PURPOSE: Final = b"request-state"
_TTL: Final = 600
_MAX_OPEN: Final = 100_000


class StateRefused(Exception):
    """A requestState that was not made here for this request, or is too old."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A retry that comes with a state of ours. Without `root` it is a new call."""

    upstream_state: str | None
    root: Ticket | None
    leg: int


class _Open:
    __slots__ = ("deadline", "leg", "root")

    def __init__(self, root: Ticket, leg: int, deadline: float) -> None:
        self.root = root
        self.leg = leg
        self.deadline = deadline


class Rounds:
    """The calls that wait for their client's next leg."""

    def __init__(self, sealer: Sealer, settler: Settler, seat: Seat | None = None) -> None:
        self._sealer = sealer
        self._seat = Seat() if seat is None else seat
        self._settler = settler
        self._open: dict[str, _Open] = {}

    def suspend(self, ticket: Ticket, upstream_state: object) -> str:
        """Record that a leg asked for input; returns the state that the client is to bring back."""
        root = ticket.root or ticket
        call = ticket.call
        self._settler.suspend(ticket)
        if len(self._open) >= _MAX_OPEN:
            self._settler.give_up(root)
        else:
            self._open[root.call.id] = _Open(root, call.leg + 1, time.monotonic() + _TTL)
        content = encode(
            {
                "c": root.call.id,
                "l": call.leg + 1,
                "o": owner_of(call.principal),
                "t": _target(call.server, call.method, call.target),
                "a": _digest(call.arguments),
                "s": upstream_state if isinstance(upstream_state, str) else None,
                "x": int(time.time()) + _TTL,
                **({"w": self._seat.number} if self._seat.shared else {}),
            }
        )
        return self._sealer.seal(_PURPOSE, content)

    def elsewhere(self, state: object) -> int | None:
        """The sibling in which the call of a state waits; None: in this one, or it is no state of ours."""
        if not self._seat.shared or not isinstance(state, str):
            return None
        content = self._sealer.unseal(_PURPOSE, state)
        return None if content is None else self._seat.elsewhere(msgspec.json.decode(content).get("w"), state)

    def resume(
        self,
        state: object,
        principal: Principal,
        server: str,
        method: str,
        target: str,
        arguments: Mapping[str, Any] | None,
    ) -> Resumed:
        """Open the state that a retry brings.

        Raises:
            StateRefused: it is not ours, another principal's or request's, or expired.
        """
        content = self._sealer.unseal(_PURPOSE, state) if isinstance(state, str) else None
        if content is None:
            raise StateRefused
        fields = msgspec.json.decode(content)
        bound = fields["o"] == owner_of(principal) and fields["t"] == _target(server, method, target)
        if not bound or fields["x"] < time.time():
            raise StateRefused
        waiting = self._open.get(fields["c"])
        same = waiting is not None and waiting.leg == fields["l"] and fields["a"] == _digest(arguments)
        if waiting is None or not same:
            return Resumed(fields["s"], None, 0)
        del self._open[fields["c"]]
        return Resumed(fields["s"], waiting.root, waiting.leg)

    def stop(self, switches: SwitchIndex) -> int:
        """Settle, at their estimate, the calls that kill switches stop; how many. Their next leg is a new call."""
        found = [
            call_id
            for call_id, waiting in self._open.items()
            if switches.stopping(scopes_of(waiting.root.call)) is not None
        ]
        for call_id in found:
            self._settler.give_up(self._open.pop(call_id).root)
        return len(found)

    def sweep(self) -> None:
        """Settle what never came back."""
        now = time.monotonic()
        for call_id in [call_id for call_id, waiting in self._open.items() if waiting.deadline < now]:
            self._settler.give_up(self._open.pop(call_id).root)


def _target(server: str, method: str, target: str) -> str:
    return f"{server}\n{method}\n{target}"


def _digest(arguments: Mapping[str, Any] | None) -> str:
    text = msgspec.json.Encoder(order="deterministic").encode(arguments)
    return hashlib.sha256(text).hexdigest()
