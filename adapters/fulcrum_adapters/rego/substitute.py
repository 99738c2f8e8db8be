"""Replacing a pattern in many strings in linear time, for `core.redact`: Python's own `re` can be stalled by a text."""

import json
import threading
from collections.abc import Sequence

from fulcrum_adapters.rego.native import NativeEngine, RegoFault, build, evaluate, guarded
from fulcrum_mcp.errors import Invalid

__all__ = ["substitute"]

_MODULE = """package substitute

texts := [regex.replace(text, input.pattern, input.replacement) | some text in input.texts]
"""
_threads = threading.local()


def substitute(pattern: str, texts: Sequence[str], replacement: str) -> Sequence[str]:
    """`texts` with every match of `pattern` (RE2 syntax) replaced by `replacement`, which is literal.

    Raises `Invalid` for a pattern that is none or is too large: then nothing is known about the texts.
    """
    if not texts:
        return texts
    document = {"pattern": pattern, "texts": list(texts), "replacement": replacement.replace("$", "$$")}
    try:
        engine = _engine().clone()
        guarded(lambda: engine.set_input_json(json.dumps(document)))
        defined, fresh = evaluate(engine, "data.substitute.texts")
    except RegoFault as fault:
        raise Invalid(f"redact pattern {pattern[:200]!r}: {fault.message}; write it in RE2 syntax") from fault
    if not defined or not isinstance(fresh, list) or len(fresh) != len(texts):
        raise Invalid(f"redact pattern {pattern[:200]!r}: the engine gave no answer")
    return fresh


def _engine() -> NativeEngine:
    try:
        return _threads.engine
    except AttributeError:
        _threads.engine = build([("substitute.rego", _MODULE)], {})
        return _threads.engine
