"""Warnings: what is surely not meant is found, what is meant is left alone."""

import pytest

from fulcrum_adapters.rego.explain import explain
from fulcrum_adapters.rego.lint import lint, unallowed
from fulcrum_mcp.core.policy import PolicyModule, PolicySource


def source(text: str, data: dict[str, object] | None = None) -> PolicySource:
    return PolicySource((PolicyModule("p.rego", f"package fulcrum.policies.p\n\n{text}\n"),), data or {}, "p")


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("allow if input.tol.name", 3, "input has no member tol", "tool?"),
        ("allow if input.principal.role", 3, "input.principal has no member role", "roles?"),
        ("allow if data.nothing.x", 3, "no data.nothing", "data.json"),
        ('alow if input.phase == "call"', 3, "nothing asks for rule alow", "allow?"),
        ('allow if startswith(input.arguments.path, "/")', 3, "reads arguments in phase list", 'input.phase == "call"'),
        ('allow if ok\nok if input.arguments.path == "/"', 3, "reads arguments in phase list", ""),
        ('allow if { input.phase == "call"; input.phase == "list" }', 3, "can never fire", ""),
        ('allow if input.phase == "result"', 3, "can never fire", ""),
        ('cost := {"calls": 1} if input.phase == "list"', 3, "can never fire", ""),
        ("allow if false", 3, "can never fire", ""),
        ('deny contains "x" if { input.phase == "call"; input.result.x }', 3, "can never fire: there is no result", ""),
        ('deny contains "x" if { input.phase == "list"; input.arguments.x }', 3, "can never fire", ""),
        ('allow if { input.phase == "call"; regex.match(input.arguments.p, "x") }', 3, "how much work", "constant"),
    ],
)
def test_a_slip_is_found(text: str, line: int, message: str, hint: str) -> None:
    found = [problem for problem in lint(source(text)) if message in problem.message]
    assert len(found) == 1
    assert (found[0].path, found[0].line, found[0].severity) == ("p.rego", line, "warning")
    assert hint in found[0].hint


@pytest.mark.parametrize(
    "text",
    [
        "allow := true",
        "default allow := false\n\nallow if input.tool.annotations.anything",
        'allow if { input.phase == "call"; input.arguments.anything.at.all }',
        "allow if input.server.labels.mine == data.cfg.x",
        'allow if { calling; input.arguments.x }\n\ncalling if input.phase == "call"',
        'deny contains "x" if input.phase == "result"',
        'allow if { input.phase == "call"; regex.match("x", input.arguments.p) }',
        'allow if input.principal.on_behalf_of.act.sub == "x"',
    ],
)
def test_what_is_meant_is_left_alone(text: str) -> None:
    assert lint(source(text, {"cfg": {"x": 1}})) == []


def test_a_tool_that_nobody_may_see_is_named() -> None:
    text = 'allow if input.tool.name == "a"\n\nallow if { "boss" in input.principal.roles; input.tool.name == "b" }'
    tools = {"s": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}
    assert [problem.message for problem in unallowed(source(text), tools, ["boss"])] == ["no rule allows the tool s__c"]


def test_explain_names_each_definition_that_spoke() -> None:
    rules = (
        *("allow if input.x == 1", "allow if input.y == 1"),
        *('deny contains "a" if input.x', 'deny contains "b" if input.z', 'warn contains "w"'),
    )
    text = "\n\n".join(rules)
    found = explain(source(text), "call", b'{"x": 1, "y": 1}')
    assert [(one.rule, one.line, one.value) for one in found] == [
        ("allow", 3, True),
        ("allow", 5, True),
        ("deny", 7, ["a"]),
        ("warn", 11, ["w"]),
    ]


def test_explain_names_the_place_where_a_policy_fails() -> None:
    (one,) = explain(source("allow if {\n\tinput.x == 1\n\t1 / 0\n}"), "call", b'{"x": 1}')
    assert (one.path, one.line) == ("p.rego", 5)
    assert "divide" in one.fault


def test_explain_leaves_other_lines_where_they_are() -> None:
    text = "allow if input.x == 1 # é ü\n\nallow if input.y == 1\n\nallow if ok\n\nok if input.z == 1"
    found = explain(source(text), "call", b'{"z": 1}')
    assert [one.line for one in found] == [7]
