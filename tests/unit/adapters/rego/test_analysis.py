"""What a set is said to depend on: never less than it does."""

import pytest

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.loading import compile_source
from fulcrum_mcp.core.policy import PolicyInfo, PolicyModule, PolicySource

LIB = PolicyModule(
    "lib.rego",
    """package lib

past(x) if x.history.taints

now := input.context.time.hour

plain(x) if x == 1

seen := input.history.taints
""",
)


def info(text: str, imports: str = "") -> PolicyInfo:
    module = PolicyModule("p.rego", f"package fulcrum.policies.p\n{imports}\n{text}\n")
    return RegoEngine(PolicySource((LIB, module), {"cfg": {}})).info


@pytest.mark.parametrize(
    "text",
    [
        'deny contains "x" if input.result.isError',
        'deny contains "x" if input["result"].isError',
        'deny contains "x" if input["r\\u0065sult"].isError',
        'deny contains "x" if input[input.method].isError',
        'deny contains "x" if { some k; input[k].isError }',
        'deny contains "x" if { some k, v in input; v.isError }',
        'deny contains "x" if { whole := input; whole.result.isError }',
        'deny contains "x" if object.get(input, ["result", "isError"], false)',
        'deny contains "x" if walk(input, [_, "secret"])',
        'deny contains "x" if helper\nhelper if input.result.isError',
        'deny contains "x" if helper(input)\nhelper(i) if i.result.isError',
        'deny contains "x" if data.fulcrum.policies.p.helper\nhelper if input.result.isError',
        'deny contains "x" if data.fulcrum.policies[input.n].helper\nhelper if input.result.isError',
        'deny contains "x" if input.phase == "result"',
        'deny contains "x" if input.phase != "call"',
        'deny contains "x" if input.phase in {"call", "result"}',
        'deny contains "x" if not input.phase == "call"',
        'deny contains "x" if input.history.taints',
        'deny contains "x" if input.context.time.hour > 5',
        'redact contains "/a"',
        'taint contains "x" if input.tool.name == "t"',
        'cost := {"bytes": count(input.result)}',
        'cost := {"bytes": 5} if input.phase == "result"',
        'deny contains "x" if { calling; input.result }\ncalling if true',
        'deny contains "x" if count([1 | input.phase == "call"; input.result]) > 0',
        'deny contains "x" if input.phase == "call" with input.phase as "call"\ndeny contains "y" if input.result',
    ],
)
def test_what_may_speak_about_a_result_judges_results(text: str) -> None:
    assert info(text).judges_results


@pytest.mark.parametrize(
    "text",
    [
        "allow := true",
        "allow if input.result",
        'deny contains "x" if { input.phase == "call"; input.history.taints }',
        'deny contains "x" if { "call" == input.phase; input.result }',
        'deny contains "x" if { input.phase in {"call", "list"}; input.result }',
        'deny contains "x" if { calling; input.result }\ncalling if input.phase == "call"',
        'deny contains "x" if input.arguments.path == "/etc"',
        'cost := {"usd_micros": 5}',
        'cost := {"usd_micros": 5} if input.tool.name == "t"',
        'redact contains "/a" if input.phase == "call"',
        'warn contains "x" if input.result',
    ],
)
def test_what_cannot_speak_about_a_result_lets_answers_through(text: str) -> None:
    assert not info(text).judges_results


@pytest.mark.parametrize(
    ("text", "imports"),
    [
        ("allow if input.history.taints", ""),
        ("allow if h.taints", "import input.history as h"),
        ("allow if history.taints", "import input.history"),
        ("allow if i.history.taints", "import input as i"),
        ("allow if lib.past(input)", "import data.lib"),
        ("allow if lib.seen", "import data.lib"),
        ("allow if data.lib.seen", ""),
        ("allow if data.lib[input.n]", ""),
        ("allow if seen", "import data.lib.seen"),
        ("allow if input[input.n]", ""),
        ("allow if json.marshal(input) == input.x", ""),
    ],
)
def test_history_is_read_wherever_it_can_be_reached(text: str, imports: str) -> None:
    assert info(text, imports).reads_history


@pytest.mark.parametrize(
    "text",
    ["allow if input.tool.history", "allow if lib.plain(input.x)", "allow if lib.now == 1", "x if input.history"],
)
def test_history_is_not_read_by_what_is_only_called_alike(text: str) -> None:
    assert not info(text, "import data.lib").reads_history


def test_budget_is_noticed() -> None:
    assert info("allow if input.budget.remaining.x > 0").reads_budget
    assert not info("allow if input.tool.name").reads_budget


def test_a_list_verdict_that_changes_with_time_is_noticed() -> None:
    assert info("allow if lib.now > 5", "import data.lib").list_reads_time
    assert info("allow if input.context").list_reads_time
    assert info("allow if input.history.taints").list_reads_time
    assert not info('deny contains "x" if { input.phase == "call"; input.context.time.hour > 5 }').list_reads_time


def test_only_rules_that_can_speak_are_asked() -> None:
    text = 'allow := true\ndeny contains "x" if input.phase == "result"\nredact contains "/a" if input.phase == "list"'
    compiled = compile_source(PolicySource((PolicyModule("p.rego", f"package fulcrum.policies.p\n{text}\n"),)))
    asked = compiled.policies.asked
    assert [list(asked("p", phase)) for phase in ("list", "call", "result")] == [["allow"], ["allow"], ["deny"]]
