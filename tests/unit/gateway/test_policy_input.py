import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import json_objects, json_values, same_json, strict_loads

from fulcrum_mcp.core.call import Call, Context, Principal, Tool
from fulcrum_mcp.gateway.policy_input import list_document, policy_document, redacted_document, with_result
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import HistoryView

ANN = Principal("acme", "ann", "k1", ("reader",), frozenset({"b", "a"}))
CALL = Call("call_1", ANN, "tools/call", "files", "read", {}, Context(protocol="2026-07-28"), Tool("read", pin="p"))

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.just('"phase":"call"')


def document(call: Call, **more: Any) -> Any:
    options: dict[str, Any] = {"labels": {}, "history": None, "remaining": None, **more}
    return strict_loads(policy_document(call, encode(call.arguments), **options))


@given(json_objects(), names, names, names)
def test_input_says_exactly_what_is_called(arguments: Any, target: str, server: str, client: str) -> None:
    call = replace(
        CALL,
        arguments=arguments,
        target=target,
        server=server,
        tool=Tool(target, target, {"x": arguments}, encode([target, arguments]).hex()),
        context=Context("e", "w", "x", "t", client, "2026-07-28"),
    )
    found = document(call, labels={server: target})
    assert same_json(found["arguments"], arguments)
    assert (found["phase"], found["method"]) == ("call", "tools/call")
    assert found["server"] == {"name": server, "labels": {server: target}}
    assert (found["tool"]["name"], found["tool"]["title"]) == (target, target)
    assert same_json(found["tool"]["annotations"], {"x": arguments})
    context = {key: value for key, value in found["context"].items() if key != "time"}
    assert context == {
        "envelope": "e",
        "workflow": "w",
        "execution": "x",
        "task": "t",
        "client": client,
        "protocol": "2026-07-28",
    }


def test_tools_of_one_name_but_another_descriptor_are_told_apart() -> None:
    for pin, hint in (("1", True), ("2", False), ("1", True)):
        call = replace(CALL, tool=Tool("read", annotations={"readOnlyHint": hint}, pin=f"told-{pin}"))
        assert document(call)["tool"] == {"name": "read", "annotations": {"readOnlyHint": hint}, "pin": f"told-{pin}"}


@given(json_objects())
def test_principals_are_told_apart(behalf: Any) -> None:
    for who in (ANN, replace(ANN, on_behalf_of=behalf), replace(ANN, roles=()), replace(ANN, scopes=frozenset())):
        found = document(replace(CALL, principal=who))["principal"]
        assert (found["roles"], found["scopes"]) == (list(who.roles), sorted(who.scopes))
        assert same_json(found.get("on_behalf_of"), who.on_behalf_of)


@pytest.mark.parametrize(
    ("method", "member"),
    [
        ("prompts/get", {"prompt": {"name": "x"}}),
        ("resources/read", {"resource": {"uri": "x"}}),
        ("vendor/x", {}),
        ("tools/other", {}),
    ],
)
def test_what_is_asked_for_has_the_name_of_its_kind(method: str, member: dict[str, Any]) -> None:
    found = document(replace(CALL, method=method, target="x", tool=None))
    assert {key: found[key] for key in found.keys() & {"tool", "prompt", "resource"}} == member


def test_past_and_budget_are_there_only_where_they_were_read() -> None:
    assert not document(CALL).keys() & {"history", "budget", "input_responses"}
    view = HistoryView(("secret",), {"files__read": 2}, ())
    found = document(replace(CALL, responses={"q": 1}), history=view, remaining={"calls": 0})
    assert found["history"] == {"taints": ["secret"], "calls": {"by_tool": {"files__read": 2}}, "approvals": []}
    assert found["budget"] == {"remaining": {"calls": 0}}
    assert found["input_responses"] == {"q": 1}


def test_time_is_said_in_words_that_agree() -> None:
    moment = document(CALL)["context"]["time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT(\d\d):\d\d:\d\dZ", moment["rfc3339"])
    assert int(moment["rfc3339"][11:13]) == moment["hour"]
    assert moment["timezone"] == "UTC"
    assert moment["weekday"].endswith("day")


@given(json_objects(), json_objects(), json_objects())
def test_redacted_copy_differs_in_the_arguments_only(arguments: Any, replacement: Any, responses: Any) -> None:
    call = replace(CALL, arguments=arguments, responses=responses)
    text = encode(arguments)
    whole = policy_document(call, text, labels={}, history=None, remaining=None)
    found = strict_loads(redacted_document(whole, text, encode(replacement)))
    assert same_json(found, {**strict_loads(whole), "arguments": replacement})


@given(json_objects(), json_values(), names)
def test_result_joins_the_input_of_its_call(arguments: Any, result: Any, agent: str) -> None:
    call = replace(CALL, arguments=arguments, principal=replace(ANN, agent=agent))
    whole = policy_document(call, encode(arguments), labels={}, history=None, remaining=None)
    found = strict_loads(with_result(whole, encode(result)))
    assert same_json(found, {**strict_loads(whole), "phase": "result", "result": result})


def test_list_input_knows_nothing_of_a_call() -> None:
    context = Context("e", "w", "x", "t", "cli", "2026-07-28")
    text = list_document(
        ANN, context, server="s", labels={"a": "b"}, member=("prompt", {"name": "p"}), method="prompts/list"
    )
    found = strict_loads(text)
    assert found.keys() == {"phase", "method", "principal", "server", "context", "prompt"}
    assert found["context"].keys() == {"client", "protocol", "time"}
