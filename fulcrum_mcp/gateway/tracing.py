"""Traces by W3C Trace Context: a caller's trace goes on through the gateway to the upstream.

In: the header `traceparent`, else `params._meta.traceparent`. Out: both name the gateway's own span as parent, so that
upstreams over stdio, which have no headers, are part of the trace too. Whoever began the trace decides about sampling.
Without tracing both members pass as they came.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from fulcrum_mcp.core.call import Call
from fulcrum_mcp.gateway.denial import Denial
from fulcrum_mcp.gateway.incoming import Incoming
from fulcrum_mcp.gateway.trace import Trace, parse_traceparent
from fulcrum_mcp.gateway.wire import Message
from fulcrum_mcp.ports import Span, SpanSink

__all__ = ["Tracer"]


class Tracer:
    """Begins and ends the spans of governed calls. `share` of those whose caller has not decided are sampled."""

    def __init__(self, sink: SpanSink, share: float = 1.0, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._sink = sink
        self._below = int(share * 2**32)
        self._random = randomness

    def begin(self, incoming: Incoming, message: Message) -> tuple[Incoming, Message, Trace]:
        """The call's place, and the same request telling the upstream about it."""
        given = _given(incoming, message)
        random = self._random(8)
        span = random.hex()
        if given is None:
            random = self._random(16)
            sampled = int.from_bytes(random[:4], "big") < self._below
            trace = Trace(random.hex(), span, None, sampled)
        else:
            trace = Trace(given[0], span, given[1], given[2])
        header = (b"traceparent", trace.traceparent.encode())
        headers = [pair for pair in incoming.headers if pair[0] != b"traceparent"]
        told = message.with_params({**message.params, "_meta": {**message.meta, "traceparent": trace.traceparent}})
        return replace(incoming, headers=[*headers, header]), told, trace

    def denied(self, trace: Trace, call: Call, denial: Denial, duration_ns: int) -> None:
        """The call was refused."""
        attributes = _about(call) | {"fulcrum.decision": denial.decision_id, "fulcrum.effect": denial.effect}
        attributes["fulcrum.code"] = denial.reasons[0].code
        self._export(trace, call, attributes, duration_ns // 1000, (), None)

    def ended(
        self, trace: Trace, call: Call, decision_id: str, outcome: str, duration_us: int, stages: tuple[int, int]
    ) -> None:
        """The call was forwarded, and this is how it ended."""
        attributes = _about(call) | {"fulcrum.decision": decision_id, "fulcrum.effect": "allow"}
        attributes["fulcrum.outcome"] = outcome
        error = None if outcome in {"ok", "input_required"} else outcome
        self._export(trace, call, attributes, duration_us, stages, error)

    def _export(
        self,
        trace: Trace,
        call: Call,
        attributes: dict[str, str | int | bool],
        duration_us: int,
        stages: Sequence[int],
        error: str | None,
    ) -> None:
        if not trace.sampled:
            return
        now = time.time_ns()
        began = now - duration_us * 1000
        name = f"{call.method} {call.target}"
        spans = [Span(name, trace.trace, trace.span, trace.parent, "server", began, now, attributes, error)]
        for name, microseconds in zip(("policy", "journal"), stages, strict=False):
            ends = began + microseconds * 1000
            inner = self._random(8).hex()
            spans.append(Span(f"fulcrum {name}", trace.trace, inner, trace.span, "internal", began, ends, {}))
            began = ends
        self._sink.export(spans)


def _given(incoming: Incoming, message: Message) -> tuple[str, str, bool] | None:
    for name, value in incoming.headers:
        if name == b"traceparent":
            return parse_traceparent(value.decode("latin-1"))
    told = message.meta.get("traceparent")
    return parse_traceparent(told) if isinstance(told, str) else None


def _about(call: Call) -> dict[str, str | int | bool]:
    """Attributes by the semantic conventions for MCP and GenAI where they have a name; no arguments."""
    return {
        "mcp.method.name": call.method,
        "gen_ai.tool.name": call.target,
        "fulcrum.server": call.server,
        "fulcrum.tenant": call.principal.tenant,
        "fulcrum.agent": call.principal.agent,
        "fulcrum.call": call.id,
        "fulcrum.leg": call.leg,
    }
