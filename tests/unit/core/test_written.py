from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.budget import Budget, Rate, Scope
from fulcrum_mcp.core.rate import parse_rate
from fulcrum_mcp.core.written import read_budget, show_limits, show_rate, show_scope
from fulcrum_mcp.errors import Invalid


def read(**fields: Any) -> Budget:
    return read_budget(fields, "bud_1", "default", lambda key: f"at {key}")


def test_a_budget_is_read_and_named_after_what_it_limits() -> None:
    budget = read(scope="tool:a__b", usd="0.5", calls=3, rate="10/minute:2", period=90)
    assert budget.limits == {"usd_micros": 500_000, "calls": 3}
    assert budget.name == "tool:a__b: 3 calls and 0.50 usd per 90, 10/minute:2"
    assert (budget.period, budget.action, budget.thresholds) == ("90", "hard", (80, 100))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "at scope: scope is missing"),
        ({"scope": "agent"}, "at scope: no limit is given"),
        ({"scope": "agent", "cals": 1}, 'at cals: unknown key "cals"; did you mean "calls"?'),
        ({"scope": "agent", "calls": True}, "at calls: "),
        ({"scope": "agent", "calls": 1, "name": " "}, "at name: name must be text"),
        ({"scope": "agent", "calls": 1, "name": "x" * 200}, "at name: name is longer than 128"),
        ({"scope": "agent", "calls": 1, "name": "a\nb"}, "at name: name holds a character"),
        ({"scope": "agent:\x00", "calls": 1}, "at scope: scope holds a character"),
        ({"scope": "agent", "calls": 1, "action": "hrad"}, 'Did you mean "hard"?'),
        ({"scope": "agent", "calls": 1, "action": []}, "at action: "),
        ({"scope": "agent", "usd": 1, "usd_micros": 1}, "usd and usd_micros are both given"),
        ({"scope": ["agent"], "calls": 1}, "at scope: "),
        ({"scope": "agent", "rate": {}}, "at rate: "),
        ({"scope": "agent", "rate": "x"}, "write N/PERIOD"),
        ({"scope": "agent", "calls": 1, "period": "dayly"}, 'Did you mean "day"?'),
        ({"scope": "agent", "calls": -1}, "zero or more"),
        ({"scope": "agent", "calls": 1, "timezone": "Mars"}, "IANA name"),
        ({"scope": "agent", "calls": 1, "thresholds": "many"}, "at thresholds: "),
    ],
)
def test_a_mistake_names_its_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(**fields)
    assert said in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(["scope", "name", "calls", "usd", "rate", "period", "action", "thresholds", "timezone", "x"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=12)
        | st.lists(st.integers(), max_size=3),
        max_size=5,
    )
)
def test_anything_else_is_refused_never_a_crash(fields: dict[str, Any]) -> None:
    try:
        said = read(**fields).name
    except Invalid as refused:
        said = str(refused)
    assert said


@pytest.mark.parametrize("rate", [Rate(10, 60, 3), Rate(1, 1, 1), Rate(5, 7, 5)])
def test_a_rate_is_shown_as_it_is_read(rate: Rate) -> None:
    assert parse_rate(show_rate(rate), "") == rate


def test_limits_and_scopes_are_shown_as_people_write_them() -> None:
    assert show_limits({"usd_micros": 1_230_000, "calls": 2}) == {"calls": "2", "usd": "1.23"}
    assert show_limits({"usd_micros": 1}) == {"usd": "0.000001"}
    assert (show_scope(Scope("agent")), show_scope(Scope("tool", "x"))) == ("agent", "tool:x")
