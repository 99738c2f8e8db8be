import json
from typing import Any

import pytest

from fulcrum_mcp.core.decision import Reason
from fulcrum_mcp.gateway.denial import DECISION_META, DENIED_CODE, Denial, denial_message, tool_error

DENIED = Denial("dec_1", "deny", (Reason("money", "deny", "too_big", "more than 100 kB."), Reason("", "", "m", "m")))
ASKED = Denial("dec_2", "require_approval", (Reason("mine", "require_approval", "big", "ask first"),), 30)


def told(denial: Denial, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "method": "tools/call",
        "modern": True,
        "structured": True,
        "deny_as": "result",
        **options,
    }
    return json.loads(denial_message(2**70, denial, **settings))


def test_text_says_who_why_and_which_decision() -> None:
    assert DENIED.text == "Denied by policy money (too_big): more than 100 kB. Denied: m. Decision dec_1."


def test_text_says_when_to_retry_and_how_to_get_approval() -> None:
    assert ASKED.text.startswith("Approval required by policy mine (big): ask first. Retry after 30 s. ")
    assert ASKED.text.endswith("Decision dec_2.")


def test_data_says_the_same_for_programs() -> None:
    assert DENIED.data == {
        "decision_id": "dec_1",
        "effect": "deny",
        "reasons": [
            {"policy": "money", "rule": "deny", "code": "too_big", "message": "more than 100 kB."},
            {"policy": "", "rule": "", "code": "m", "message": "m"},
        ],
    }
    assert ASKED.data["retry_after"] == 30


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("structured", [True, False])
def test_denied_tool_call_is_a_result_that_the_model_reads(modern: bool, structured: bool) -> None:
    message = told(DENIED, modern=modern, structured=structured)
    assert (message["jsonrpc"], message["id"]) == ("2.0", 2**70)
    result = message["result"]
    assert result["isError"] is True
    assert result["content"] == [{"type": "text", "text": DENIED.text}]
    assert result["_meta"] == {DECISION_META: DENIED.data}
    assert ("resultType" in result) is modern
    # A client validates structuredContent against the tool's outputSchema, even on errors.
    assert result.get("structuredContent") == (DENIED.data if structured else None)
    assert ("structuredContent" in result) is structured


@pytest.mark.parametrize("method", ["prompts/get", "resources/read", "vendor/x"])
def test_other_denied_methods_are_errors_outside_the_reserved_range(method: str) -> None:
    error = told(DENIED, method=method)["error"]
    assert error == {"code": DENIED_CODE, "message": DENIED.text, "data": {DECISION_META: DENIED.data}}
    assert not -32768 <= error["code"] <= -32000


def test_denied_tool_call_is_an_error_where_the_setting_says_so() -> None:
    assert told(DENIED, deny_as="error")["error"]["code"] == DENIED_CODE


def test_failure_of_an_upstream_is_a_tool_error_too() -> None:
    result = json.loads(tool_error("i", "t", {"a": 1}, modern=False, structured=False))["result"]
    assert result == {"content": [{"type": "text", "text": "t"}], "isError": True, "_meta": {DECISION_META: {"a": 1}}}


def test_a_budget_speaks_for_itself() -> None:
    reason = Reason("a dollar a day", "", "budget_exceeded", "0 of 5 calls left today, resets 00:00 UTC")
    text = Denial("dec_1", "deny", (reason,)).text
    assert text == ('Denied by budget "a dollar a day": 0 of 5 calls left today, resets 00:00 UTC. Decision dec_1.')
