import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.budgets import from_tables
from fulcrum_mcp.settings.place import toml_places

PLACES = toml_places('[[budget]]\nname = "a"\nscope = "agent"\n[[rate]]\nscope = "tool"\nlimit = "1/day"\n', "f")


def test_budgets_and_rates_become_one_list() -> None:
    daily, rate = from_tables(
        [{"name": "a", "scope": "agent", "calls": 1}], [{"scope": "tool", "limit": "1/day"}], PLACES
    )
    assert (daily.name, rate.name) == ("a", "tool: 1/day")
    assert daily.id != rate.id
    assert all(budget.id.startswith("bud_cfg_") for budget in (daily, rate))


def test_a_name_taken_twice_is_refused_at_its_line() -> None:
    with pytest.raises(Invalid, match=r'f:4: rate "a": the name "a" is taken'):
        from_tables(
            [{"name": "a", "scope": "agent", "calls": 1}], [{"name": "a", "scope": "tool", "limit": "1/day"}], PLACES
        )


def test_a_rate_without_a_limit_says_what_is_missing() -> None:
    with pytest.raises(Invalid, match="f:6: rate 1: limit is missing; write N/PERIOD"):
        from_tables([], [{"scope": "tool"}], PLACES)
