"""Every hazard of the engine, through our wrapper: nothing ends the process, nothing but the literal true allows."""

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum_adapters.rego import native
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict, combine
from fulcrum_mcp.core.policy import PolicyModule, PolicySource


def source(data: dict[str, Any] | None = None, **policies: str) -> PolicySource:
    modules = (
        PolicyModule(f"{name}.rego", f"package fulcrum.policies.{name}\n\n{text}\n") for name, text in policies.items()
    )
    return PolicySource(tuple(modules), data or {}, "test")


def judge(text: str, document: Any = None, phase: Phase = "call", data: dict[str, Any] | None = None) -> Verdict:
    raw = (
        document
        if isinstance(document, bytes)
        else json.dumps({"phase": phase} if document is None else document).encode()
    )
    (verdict,) = RegoEngine(source(data, p=text)).judge(phase, raw)
    return verdict


@pytest.mark.parametrize(
    "document",
    [
        rb'{"phase": "call", "arguments": {"a": "\ud800"}}',
        b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b"\xff\xfe",
        b"",
        b'{"a": 1',
    ],
    ids=["lone surrogate", "depth", "huge number", "NaN", "no UTF-8", "empty", "cut off"],
)
def test_input_that_the_engine_cannot_read_is_an_error_of_every_policy(document: bytes) -> None:
    engine = RegoEngine(source(a="allow := true", b="allow := true"))
    verdicts = engine.judge("call", document)
    assert [verdict.policy for verdict in verdicts] == ["a", "b"]
    assert all(verdict.error and not verdict.allow for verdict in verdicts)
    assert engine.judge("call", b"{}")[0].allow


def test_input_beyond_the_limit_is_an_error() -> None:
    engine = RegoEngine(source(a="allow := true"), max_input=20)
    assert engine.judge("call", b'{"a": "0123456789"}')[0].allow
    assert "policy.max_input is 20" in str(engine.judge("call", b'{"a": "0123456789ab"}')[0].error)


def test_integers_of_64_bits_are_exact_and_larger_ones_are_no_error() -> None:
    """Beyond 64 bits the engine compares as floating point does: said in the documentation for authors."""
    for number in (2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)):
        rule = f"allow if input.n == {number}"
        assert judge(rule, json.dumps({"n": number}).encode()).allow
        assert not judge(rule, json.dumps({"n": number - 1 if number > 0 else number + 1}).encode()).allow
    assert judge("allow if input.n > 100", json.dumps({"n": 10**30}).encode()).allow


PANIC = 'allow if strings.count(input.text, "") > 0'


def test_a_panic_is_an_error_of_its_policy_and_the_others_still_speak() -> None:
    engine = RegoEngine(source(a="allow := true", b=PANIC, c="allow := true"))
    for _ in range(3):
        first, second, third = engine.judge("call", b'{"text": "abc"}')
        assert first.allow
        assert third.allow
        assert "panicked" in str(second.error)
        assert combine((first, second, third), "call").effect == "deny"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_the_wish_to_stop_passes_through(stop: type[BaseException]) -> None:
    def step() -> None:
        raise stop

    with pytest.raises(stop):
        native.guarded(step)
    with pytest.raises(stop):
        native.translated(stop())


def test_any_other_exception_of_the_engine_is_a_fault() -> None:
    class Panic(BaseException):
        pass

    def step() -> None:
        raise Panic("deep inside")

    with pytest.raises(native.RegoFault, match="deep inside") as caught:
        native.guarded(step)
    assert caught.value.panicked


def test_another_thread_gets_an_engine_of_its_own() -> None:
    engine = RegoEngine(source(a="allow if input.x == 1"))
    found: list[Verdict] = []
    threads = [threading.Thread(target=lambda: found.extend(engine.judge("call", b'{"x": 1}'))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [verdict.allow for verdict in found] == [True] * 4
    assert engine.judge("call", b'{"x": 1}')[0].allow


def test_the_engine_that_fails_open_is_not_used() -> None:
    """The faster machine of the same package allows here: the deny errs, and so must the policy."""
    verdict = judge("allow if not big\nbig if to_number(input.amount) > 100", {"amount": "abc"})
    assert not verdict.allow
    assert "could not parse" in str(verdict.error)


def test_a_set_of_objects_is_read() -> None:
    text = 'deny contains {"code": code, "message": "no"} if some code in ["b", "a"]'
    assert [reason.code for reason in judge(text).deny] == ["a", "b"]


VALUES = [
    *("true", "false", "null", "0", "1", "-1", "1.5", '""', '"true"', '"<undefined>"', "[]", "[true]", "{}"),
    *('{"allow": true}', "set()", "{true}", '"yes"', "1e300", "[[[]]]", "input.missing", 'to_number("x")', "1/0"),
    *('{"a": 1}[input.k]', "input.t", "count([])", "[x | some x in [true]][0]", 'regex.match("(", "x")'),
]
ALLOWING = {"true", "input.t", "[x | some x in [true]][0]"}


@pytest.mark.parametrize("value", VALUES)
def test_only_the_literal_true_allows(value: str) -> None:
    verdict = judge(f"allow := {value}", {"t": True, "k": "b"})
    assert verdict.allow is (value in ALLOWING)
    assert combine((verdict,), "call").effect == ("allow" if value in ALLOWING else "deny")


@pytest.mark.parametrize("value", VALUES)
def test_a_conflict_never_allows(value: str) -> None:
    verdict = judge(
        f'allow := true if input.t\nallow := {value} if input.t == true\nallow := "other" if input.t', {"t": True}
    )
    assert not verdict.allow


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("rule", ["deny", "require_approval", "warn", "redact", "taint"])
def test_a_set_with_a_wrong_entry_never_allows_silently(rule: str, value: str) -> None:
    verdict = judge(f"allow := true\n{rule} contains {value}", {"t": True, "k": "b"})
    said = any((verdict.deny, verdict.require_approval, verdict.warn, verdict.redact, verdict.taint))
    undefined = value in {"input.missing", '{"a": 1}[input.k]'}
    assert verdict.error or said or undefined


@pytest.mark.parametrize("value", VALUES)
def test_a_cost_that_is_none_is_an_error(value: str) -> None:
    verdict = judge(f"allow := true\ncost := {value}", {"t": True, "k": "b"})
    undefined = value in {"{}", "input.missing", '{"a": 1}[input.k]'}
    assert (verdict.error is None) is undefined


@pytest.mark.parametrize(
    "cost",
    [
        '{"calls": -1}',
        '{"calls": 1.5}',
        '{"calls": true}',
        '{"calls": "1"}',
        '{"euros": 1}',
        '{"bytes": 9223372036854775808}',
    ],
)
def test_a_cost_is_whole_and_not_negative(cost: str) -> None:
    assert judge(f"cost := {cost}").error


def test_a_cost_by_key_is_read() -> None:
    text = 'cost[key] := amount if some key, amount in {"calls": 2, "usd_micros": 5}'
    assert judge(text).cost == {"calls": 2, "usd_micros": 5}


def test_a_cost_that_is_the_engines_word_for_undefined_is_no_free_call() -> None:
    assert judge("cost := input.arguments.price", {"arguments": {"price": "<undefined>"}}).error
    assert judge("cost := input.arguments.price", {"arguments": {}}).cost == {}


@pytest.mark.parametrize(
    ("rule", "phases"),
    [
        ("allow if input.boom.x == 1/0", {"list", "call"}),
        ('require_approval contains "x" if 1/0', {"list", "call"}),
        ('deny contains "x" if 1/0', {"list", "call", "result"}),
        ('warn contains "x" if 1/0', {"call", "result"}),
        ('redact contains "/x" if 1/0', {"call", "result"}),
        ('taint contains "x" if 1/0', {"call", "result"}),
        ('cost := {"calls": 1} if 1/0', {"call", "result"}),
    ],
)
def test_only_the_rules_of_a_phase_are_asked(rule: str, phases: set[str]) -> None:
    engine = RegoEngine(source(p=rule))
    every: tuple[Phase, ...] = ("list", "call", "result")
    assert {phase for phase in every if engine.judge(phase, b'{"boom": {"x": 1}}')[0].error} == phases


def test_a_rule_guarded_by_phase_is_not_asked_in_another() -> None:
    text = 'deny contains "x" if {\n\tinput.phase == "result"\n\t1/0\n}'
    assert judge(text, {"phase": "call"}, "call").error is None
    assert judge(text, {"phase": "result"}, "result").error


def test_the_verdict_names_the_revision_of_its_module() -> None:
    text = source(p="allow := true")
    (verdict,) = RegoEngine(text).judge("call", b"{}")
    assert text.modules[0].digest.startswith(verdict.revision)
    assert len(verdict.revision) == 12


def test_two_files_of_one_package_are_one_policy() -> None:
    modules = (
        PolicyModule("a.rego", "package fulcrum.policies.p\nallow := true\n"),
        PolicyModule("b.rego", 'package fulcrum.policies.p\ndeny contains "no" if input.x\n'),
    )
    engine = RegoEngine(PolicySource(modules))
    (verdict,) = engine.judge("call", b'{"x": true}')
    assert verdict.allow
    assert verdict.deny
    assert engine.info.names == ("p",)


def test_evaluations_do_not_leak_into_each_other() -> None:
    engine = RegoEngine(source(p="allow if input.x == 1\ndeny contains input.y if input.y"))
    assert engine.judge("call", b'{"x": 1, "y": "secret"}')[0].deny
    assert engine.judge("call", b'{"x": 2}')[0] == Verdict("p", engine.judge("call", b"{}")[0].revision)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(("phase", "tool", "arguments", "principal", "x")), JSON_VALUES))
def test_no_input_is_more_than_an_error(document: dict[str, Any]) -> None:
    verdicts = HARD.judge("call", json.dumps(document).encode())
    assert len(verdicts) == 3
    assert verdicts[0].allow is (document.get("x") is True and verdicts[0].error is None)


HARD = RegoEngine(
    source(
        a="allow if input.x == true",
        b='deny contains sprintf("%v", [walked]) if { walk(input.arguments, [_, walked]); startswith(walked, "/") }',
        c='cost := {"calls": count(input.arguments)}\ntaint contains lower(input.tool.name)',
    )
)


@pytest.mark.parametrize("value", ["hunter22", "a ` hunter22", "`hunter22`", "` ` hunter22"])
def test_an_error_tells_agents_neither_values_nor_folders(value: str) -> None:
    module = PolicyModule("/home/operator/p.rego", "package fulcrum.policies.p\n\ndeny contains sum(input.result.x)\n")
    (verdict,) = RegoEngine(PolicySource((module,))).judge("result", json.dumps({"result": {"x": [value]}}).encode())
    assert "p.rego:3: `sum` expects numeric" in str(verdict.error)
    assert "hunter22" not in str(verdict.error)
    assert "operator" not in str(verdict.error)
