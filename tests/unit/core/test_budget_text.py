import pytest

from fulcrum_mcp.core.budget import Budget, Rate, Refused, Remaining, Scope
from fulcrum_mcp.core.budget_text import amount_text, refusal_text, remaining_text

SECOND = 1_000_000_000
MIDNIGHT = 1_795_564_800 * SECOND
"""2026-11-25 00:00 UTC."""


def refused(
    *,
    amount: str = "calls",
    limit: int = 5,
    left: int = 0,
    period: str = "day",
    timezone: str = "UTC",
    at: int = MIDNIGHT,
) -> str:
    budget = Budget("b", "t", "daily", Scope("agent"), {amount: limit}, period, timezone=timezone)
    return refusal_text(Refused("hard", budget, "bot", amount, limit, left, at, 60))


def test_refusals_say_what_is_left_and_when_it_resets() -> None:
    assert refused() == "0 of 5 calls left today, resets 00:00 UTC"
    assert refused(period="hour", left=2) == "2 of 5 calls left this hour, resets 00:00 UTC"
    assert refused(period="month") == "0 of 5 calls left this month, resets 2026-11-25 00:00 UTC"
    assert refused(timezone="Europe/Paris") == "0 of 5 calls left today, resets 01:00 Europe/Paris"
    assert refused(period="infinite", at=0) == "0 of 5 calls left, never resets"
    assert refused(amount="usd_micros", limit=1_000_000, left=1_250) == (
        "$0.00125 of $1.00 left today, resets 00:00 UTC"
    )
    assert refused(amount="input_tokens", limit=50_000) == "0 of 50,000 input tokens left today, resets 00:00 UTC"
    assert refused(period="90", at=MIDNIGHT + 30 * SECOND) == (
        "0 of 5 calls left in this window of 90 s, resets 2026-11-25 00:00:30 UTC"
    )


def test_refused_rate_says_when_to_try_again() -> None:
    budget = Budget("b", "t", "slow", Scope("tool"), rate=Rate(10, 60, 3))
    assert refusal_text(Refused("hard", budget, "x", "rate", 10, 0, MIDNIGHT, 6)) == (
        "rate limit of 10 calls per minute reached, try again in 6 s"
    )
    assert refusal_text(Refused("hard", budget, "x", "rate", 10, 3, 0, 0)) == (
        "rate limit of 10 calls per minute reached, more at once than its burst allows"
    )


def test_remaining_is_told() -> None:
    left = Remaining("b", "daily", "calls", 5, 3, MIDNIGHT)
    assert remaining_text(left) == "3 of 5 calls left, resets 2026-11-25 00:00 UTC"
    assert remaining_text(Remaining("b", "slow", "rate", 10, 2, 0)) == (
        "2 calls possible at once, 10 is the rate's limit"
    )


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "$0.00"), (1, "$0.000001"), (1_500_000, "$1.50"), (1_234_000_000, "$1,234.00")]
)
def test_dollars_are_written_without_rounding(micros: int, text: str) -> None:
    assert amount_text(micros, "usd_micros") == text
