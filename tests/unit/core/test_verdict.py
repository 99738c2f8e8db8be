"""What shapes of rule values are taken, and that all others deny."""

from typing import Any

import pytest

from fulcrum_mcp.core.decision import Reason, Redaction
from fulcrum_mcp.core.verdict import MAX_ITEMS, MAX_TEXT, verdict_of

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    1.5,
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
    [None],
    [[]],
    [{"code": 1}],
    [{"x": "y"}],
]


def error(**values: Any) -> str | None:
    return verdict_of("p", "1", values, "call").error


@pytest.mark.parametrize("value", [odd for odd in ODD if not isinstance(odd, bool)])
def test_an_allow_that_is_no_boolean_is_an_error(value: Any) -> None:
    verdict = verdict_of("p", "1", {"allow": value}, "call")
    assert not verdict.allow
    assert verdict.error


@pytest.mark.parametrize("rule", ["deny", "require_approval", "warn", "redact", "taint"])
@pytest.mark.parametrize("value", [odd for odd in ODD if odd != []])
def test_a_set_of_the_wrong_shape_is_an_error(rule: str, value: Any) -> None:
    verdict = verdict_of("p", "1", {"allow": True, rule: value}, "call")
    assert verdict.error
    assert not verdict.allow


def test_reasons_are_strings_or_code_and_message() -> None:
    verdict = verdict_of(
        "p", "1", {"deny": ["no", {"code": "c", "message": "m"}, {"code": "only"}, {"message": "why"}]}, "call"
    )
    assert verdict.deny == (
        Reason("p", "deny", "deny", "no"),
        Reason("p", "deny", "c", "m"),
        Reason("p", "deny", "only", "only"),
        Reason("p", "deny", "deny", "why"),
    )


def test_long_messages_are_cut_and_too_many_entries_are_an_error() -> None:
    assert len(verdict_of("p", "1", {"deny": ["x" * 9999]}, "call").deny[0].message) == MAX_TEXT
    assert error(deny=[str(number) for number in range(MAX_ITEMS + 1)])


def test_redactions_are_pointers_or_patterns() -> None:
    verdict = verdict_of("p", "1", {"redact": ["/a/b", {"pattern": "x+", "with": "-"}, {"pattern": "y"}]}, "result")
    assert verdict.redact == (
        Redaction(pointer="/a/b"),
        Redaction(pattern="x+", replacement="-"),
        Redaction(pattern="y"),
    )


@pytest.mark.parametrize(
    "target", ["", "a/b", {"pattern": ""}, {"with": "x"}, {"pattern": "x", "with": 1}, {"pattern": "x", "by": "y"}]
)
def test_a_redaction_that_names_nothing_is_an_error(target: Any) -> None:
    assert error(redact=[target])


@pytest.mark.parametrize(
    "cost", [None, [], "x", {"calls": -1}, {"calls": True}, {"calls": 1.0}, {"euros": 1}, {"calls": 2**63}]
)
def test_a_cost_that_is_none_is_an_error(cost: Any) -> None:
    assert error(cost=cost)


def test_rules_of_another_phase_are_ignored() -> None:
    values = {"allow": True, "cost": "wrong", "redact": "wrong", "taint": "wrong", "warn": "wrong"}
    assert verdict_of("p", "1", values, "list").allow
    assert verdict_of("p", "1", {"allow": "wrong", "require_approval": "wrong"}, "result").error is None
