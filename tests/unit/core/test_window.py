from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.window import NAMED_PERIODS, parse_period, parse_timezone, window_at
from fulcrum_mcp.errors import Invalid

SECOND = 1_000_000_000
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
MOMENTS = st.integers(min_value=1_000_000_000, max_value=2_000_000_000).map(lambda s: s * SECOND)


def ns(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("minute", "2026-11-24T07:31:00", "2026-11-24T07:32:00"),
        ("hour", "2026-11-24T07:00:00", "2026-11-24T08:00:00"),
        ("day", "2026-11-24T00:00:00", "2026-11-25T00:00:00"),
        ("week", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
        ("month", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
        ("quarter", "2026-10-01T00:00:00", "2027-01-01T00:00:00"),
        ("year", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("90", "2026-11-24T07:31:30", "2026-11-24T07:33:00"),
    ],
)
def test_each_period_begins_and_ends_where_the_calendar_says(period: str, start: str, end: str) -> None:
    assert window_at(period, "UTC", ns("2026-11-24T07:31:45")) == (ns(start), ns(end))


def test_infinite_window_never_ends() -> None:
    assert window_at("infinite", "UTC", ns("2026-11-24T07:31:45")) == (0, 0)


def test_day_of_changing_clocks_has_23_or_25_hours() -> None:
    spring = window_at("day", "Europe/Paris", ns("2026-03-29T12:00:00"))
    autumn = window_at("day", "Europe/Paris", ns("2026-10-25T12:00:00"))
    assert [(window.end - window.start) // (3600 * SECOND) for window in (spring, autumn)] == [23, 25]
    assert spring.start == ns("2026-03-29T00:00:00", "Europe/Paris")


def test_day_begins_at_the_first_instant_where_midnight_is_skipped() -> None:
    window = window_at("day", "Asia/Beirut", ns("2026-03-29T12:00:00"))
    assert window.start == ns("2026-03-28T22:00:00")
    assert window.end - window.start == 23 * 3600 * SECOND


def test_hour_follows_a_zone_with_half_hours() -> None:
    assert window_at("hour", "Asia/Kolkata", ns("2026-11-24T07:31:45")).start == ns("2026-11-24T07:30:00")


@given(
    st.sampled_from([*(p for p in NAMED_PERIODS if p != "infinite"), "1", "7", "86400"]),
    st.sampled_from(ZONES),
    MOMENTS,
)
def test_windows_hold_their_moment_and_leave_no_gap_and_no_overlap(period: str, zone: str, at: int) -> None:
    window = window_at(period, zone, at)
    assert window.start <= at < window.end
    for inside in (window.start, (window.start + window.end) // 2, window.end - 1):
        assert window_at(period, zone, inside) == window
    assert window_at(period, zone, window.end).start == window.end
    assert window_at(period, zone, window.start - 1).end == window.start


@pytest.mark.parametrize(("value", "wanted"), [("day", "day"), (" Hour ", "hour"), (90, "90"), ("090", "90")])
def test_period_is_read(value: object, wanted: str) -> None:
    assert parse_period(value, "x") == wanted


def test_misspelt_period_names_place_choices_and_a_guess() -> None:
    with pytest.raises(Invalid) as caught:
        parse_period("dayly", 'fulcrum.toml:14: budget "daily"')
    assert str(caught.value) == (
        'fulcrum.toml:14: budget "daily": period "dayly" is not one of minute, hour, day, week, month, quarter, year, '
        'infinite or seconds. Did you mean "day"?'
    )


@pytest.mark.parametrize("value", ["", "0", 0, -1, True, 1.5, None, "²", "99999999999999", [], "1 day"])
def test_wrong_period_is_invalid(value: object) -> None:
    with pytest.raises(Invalid, match="is not one of minute"):
        parse_period(value, "--period")


@pytest.mark.parametrize("value", ["Europe/Pariss", "", "../etc/passwd", "/etc/passwd", 3, "\0"])
def test_unknown_timezone_is_invalid(value: object) -> None:
    with pytest.raises(Invalid, match="--timezone"):
        parse_timezone(value, "--timezone")
