from datetime import UTC, datetime
from typing import Any

from conftest_cli import Run

from fulcrum_mcp.cli.budget import _lines
from fulcrum_mcp.cli.output import bar


def test_a_budget_is_made_listed_and_deleted(run: Run) -> None:
    made = run("budget", "create", "--scope", "agent", "--usd", "1", "--rate", "10/minute:3", "--action", "soft")
    assert made.code == 0, made.err
    budget_id = made.out.split()[1]
    listed = run("budget", "list")
    assert "agent: 1.00 usd per day, 10/minute:3" in listed.out
    assert run("budget", "create", "--scope", "agent", "--usd", "1", "--rate", "10/minute:3").code == 1
    assert run("budget", "delete", budget_id).code == 0
    assert run("budget", "delete", budget_id).code == 1


NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def document(**usage: Any) -> dict[str, Any]:
    bucket = {
        "bucket": "ana\x1b[31m",
        "committed": {"usd_micros": 520_000},
        "reserved": {"usd_micros": 0},
        "per_hour": {"usd_micros": 43_333},
        "window_start": "2026-11-24T00:00:00Z",
        "resets_at": "2026-11-25T00:00:00Z",
    }
    budget = {"name": "a dollar", "scope": "agent", "limits": {"usd_micros": 1_000_000}, "rate": None, "id": "b1"}
    return budget | {"period": "day", "action": "hard", "source": "file", "usage": [bucket | usage]}


def test_usage_is_told_with_bar_pace_and_reset() -> None:
    title, line = _lines(document(), NOW)
    assert title == "a dollar  [agent, per day, hard]  b1 (in a file)"
    assert line.split("  ")[1:] == [
        "ana?[31m",
        "████████░░░░░░░░",
        "52 %",
        "$0.52 of $1.00",
        "$0.04 an hour",
        "resets 2026-11-25 00:00 UTC, in 12 h 0 min",
    ]


def test_what_never_resets_has_no_pace() -> None:
    _, line = _lines(document(resets_at=None, window_start=None), NOW)
    assert line.endswith("-  never resets")


def test_a_bar_is_full_only_when_all_is_used() -> None:
    assert [bar(used, 100, 4) for used in (0, 1, 99, 100, 500)] == ["░░░░", "█░░░", "███░", "████", "████"]
    assert bar(0, 0, 2) == "██"


def test_a_slow_pace_is_not_rounded_to_nothing() -> None:
    slow = document(committed={"calls": 5}, reserved={"calls": 0})
    _, line = _lines({**slow, "limits": {"calls": 10}}, NOW)
    assert "0.4 calls an hour" in line
    _, cents = _lines(document(committed={"usd_micros": 12_000}), NOW)
    assert "$0.001000 an hour" in cents


def test_a_budget_whose_name_says_it_all_says_it_once() -> None:
    named = {**document(), "name": "agent: 1.00 usd per day", "scope": "agent"}
    head, _ = _lines(named, NOW)
    assert head.startswith("agent: 1.00 usd per day  [hard]")
