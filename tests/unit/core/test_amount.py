from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.amount import MAX_AMOUNT, amount_of, parse_count, parse_limits, parse_thresholds, parse_usd
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.errors import Invalid


@pytest.mark.parametrize(
    ("value", "micros"),
    [("1.00", 1_000_000), (1.1, 1_100_000), (0.1, 100_000), ("$0.000001", 1), (3, 3_000_000), (0, 0), ("1e3", 10**9)],
)
def test_dollars_become_exact_micros(value: object, micros: int) -> None:
    assert parse_usd(value, "--usd") == micros


@given(st.integers(0, 10**15))
def test_every_micro_survives_being_written_and_read(micros: int) -> None:
    assert parse_usd(f"{micros // 10**6}.{micros % 10**6:06d}", "x") == micros


@given(st.integers(0, 100 * (MAX_AMOUNT // 10**6)))
def test_every_cent_survives_a_float(cents: int) -> None:
    assert parse_usd(cents / 100, "x") == cents * 10_000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("one", "is not an amount"),
        ("", "is not an amount"),
        (None, "is not an amount"),
        (True, "is not an amount"),
        ("nan", "zero or more"),
        (float("inf"), "zero or more"),
        ("-1", "zero or more"),
        ("0.0000001", "at most 6 decimals"),
        ("1e30", "too large"),
        (Decimal(2**52), "too large"),
    ],
)
def test_wrong_dollars_say_what_and_where(value: object, says: str) -> None:
    with pytest.raises(Invalid, match=r"^--usd: ") as caught:
        parse_usd(value, "--usd")
    assert says in str(caught.value)


@pytest.mark.parametrize("value", ["-1", "1.5", 1.5, True, None, "", "٣", "1" * 5000, MAX_AMOUNT + 1, str(2**64)])
def test_wrong_count_says_what_and_where(value: object) -> None:
    with pytest.raises(Invalid, match=r"^--calls: calls"):
        parse_count(value, "calls", "--calls")


def test_counts_are_read_with_underscores_and_up_to_the_bound() -> None:
    assert [parse_count(value, "calls", "x") for value in ("1_000", 0, MAX_AMOUNT)] == [1000, 0, MAX_AMOUNT]


def test_limits_are_read_and_an_unknown_one_gets_a_guess() -> None:
    assert parse_limits({"usd": 1.0, "calls": 5, "tokens": "7"}, "x") == {"usd_micros": 10**6, "calls": 5, "tokens": 7}
    with pytest.raises(Invalid, match=r'budget "a": amount "token" is not one of .* Did you mean "tokens"'):
        parse_limits({"token": 1}, 'budget "a"')


def test_tokens_are_input_and_output() -> None:
    assert amount_of(Amounts(input_tokens=3, output_tokens=4), "tokens") == 7
    assert amount_of(Amounts(seconds=9), "seconds") == 9


@pytest.mark.parametrize(("value", "wanted"), [("100, 80%", (80, 100)), ([50, 50], (50,)), (90, (90,)), ([], ())])
def test_thresholds_are_sorted_and_single(value: object, wanted: tuple[int, ...]) -> None:
    assert parse_thresholds(value, "x") == wanted


@pytest.mark.parametrize("value", ["0", [1001], "eighty", None, [True], {}])
def test_wrong_thresholds_are_invalid(value: object) -> None:
    with pytest.raises(Invalid, match=r"^--threshold: "):
        parse_thresholds(value, "--threshold")
