"""Which definition of which rule spoke: each is evaluated alone, with its sisters blanked out of the source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fulcrum_adapters.rego.analysis import POLICIES
from fulcrum_adapters.rego.loading import Compiled, compile_source
from fulcrum_adapters.rego.native import NativeEngine, RegoFault, build, evaluate, guarded
from fulcrum_adapters.rego.syntax import RuleSyntax
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.policy import PolicySource

__all__ = ["Spoken", "explain"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One definition of a rule that had something to say, or that failed (`fault`)."""

    policy: str
    rule: str
    path: str
    line: int
    value: Any
    fault: str = ""


def explain(source: PolicySource, phase: Phase, document: bytes) -> tuple[Spoken, ...]:
    """Every definition that spoke about an input document, by policy. Raises `InvalidPolicy` for a broken set."""
    compiled = compile_source(source)
    return tuple(
        spoken
        for policy in compiled.policies.policies
        for rule in compiled.policies.asked(policy, phase)
        for spoken in _rule(compiled, source, policy, rule, document.decode())
    )


def _rule(compiled: Compiled, source: PolicySource, policy: str, rule: str, text: str) -> Iterator[Spoken]:
    files = {id(each): module.file for module in compiled.policies.modules for each in module.rules}
    definitions = compiled.policies.definitions(policy, rule)
    path = f"data.{POLICIES}{policy}.{rule}"
    first = definitions[0]
    try:
        whole = _value(compiled.engine.clone(), path, text)
    except RegoFault as fault:
        place = (fault.path, fault.line) if fault.line else (files[id(first)], first.line)
        yield Spoken(policy, rule, *place, None, fault.message)
        return
    if whole in (None, False, [], {}):
        return
    if len(definitions) == 1:
        yield Spoken(policy, rule, files[id(first)], first.line, whole)
        return
    for definition in definitions:
        file = files[id(definition)]
        others = [(files[id(other)], other) for other in definitions if other is not definition]
        try:
            value = _value(build(_without(source, others), source.data), path, text)
        except RegoFault:
            continue
        if value not in (None, False, [], {}):
            yield Spoken(policy, rule, file, definition.line, value)


def _value(engine: NativeEngine, path: str, text: str) -> Any:
    guarded(lambda: engine.set_input_json(text))
    return evaluate(engine, path)[1]


def _without(source: PolicySource, blanked: list[tuple[str, RuleSyntax]]) -> Iterator[tuple[str, str]]:
    """The modules with some definitions turned into blank lines, so that lines keep their numbers."""
    spans: dict[str, list[RuleSyntax]] = {}
    for file, rule in blanked:
        spans.setdefault(file, []).append(rule)
    for module in source.modules:
        yield module.path, _blank(module.source, spans.get(module.path, []))


def _blank(text: str, rules: list[RuleSyntax]) -> str:
    raw = bytearray(text.encode())
    for rule in rules:
        raw[rule.start : rule.end] = bytes(byte if byte in b"\r\n" else 0x20 for byte in raw[rule.start : rule.end])
    return raw.decode()


def as_data(spoken: tuple[Spoken, ...]) -> list[Mapping[str, Any]]:
    """For JSON output."""
    return [
        {
            "policy": one.policy,
            "rule": one.rule,
            "path": one.path,
            "line": one.line,
            "value": one.value,
            "fault": one.fault,
        }
        for one in spoken
    ]
