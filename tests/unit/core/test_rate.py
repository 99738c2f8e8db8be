import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.budget import Rate
from fulcrum_mcp.core.rate import interval_of, parse_rate, step
from fulcrum_mcp.errors import Invalid

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def test_burst_passes_at_once_then_one_each_interval() -> None:
    rate, arrival = Rate(10, 60, 3), 0
    admitted = []
    for second in range(19):
        pace = step(rate, arrival, 1, START + second * SECOND)
        if pace.conforms:
            arrival = pace.arrival
            admitted.append(second)
        elif second == 1:
            pytest.fail("the burst of three was not given")
    assert admitted == [0, 1, 2, 6, 12, 18]


def test_refusal_says_when_the_call_would_conform() -> None:
    rate = Rate(10, 60, 1)
    arrival = step(rate, 0, 1, START).arrival
    refused = step(rate, arrival, 1, START + SECOND)
    assert (refused.conforms, refused.left, refused.conforms_at) == (False, 0, START + 6 * SECOND)
    assert step(rate, arrival, 1, refused.conforms_at).conforms
    assert not step(rate, arrival, 1, refused.conforms_at - 1).conforms


def test_interval_that_is_no_whole_number_is_rounded_up() -> None:
    arrival = step(Rate(7, 1, 1), 0, 1, START).arrival
    assert step(Rate(7, 1, 1), arrival, 1, START).conforms_at == START + 142_858


def test_rate_finer_than_a_microsecond_admits_a_million_a_second() -> None:
    assert [interval_of(Rate(limit, 1, 1)) for limit in (1, 300_000, 999_999_999)] == [SECOND, 4, 1]


def test_largest_times_of_a_rate_are_exact_in_a_double() -> None:
    slowest = parse_rate("1/week:5000", "x")
    assert step(slowest, 0, slowest.burst, 2**52).arrival < 2**53


def test_more_than_the_burst_never_conforms() -> None:
    assert step(Rate(10, 60, 3), 0, 4, START).conforms_at == 0


def test_zero_calls_pass_an_empty_bucket_and_take_nothing() -> None:
    rate = Rate(1, 60, 1)
    arrival = step(rate, 0, 1, START).arrival
    free = step(rate, arrival, 0, START)
    assert (free.conforms, free.arrival) == (True, arrival)


def test_clock_that_went_back_leaves_an_empty_bucket_that_refills() -> None:
    rate = Rate(10, 60, 3)
    arrival = step(rate, 0, 3, START + 10**9 * SECOND).arrival
    assert not step(rate, arrival, 1, START).conforms
    assert step(rate, arrival, 0, START).conforms
    drained = step(rate, arrival, 0, START).arrival
    assert step(rate, drained, 1, START + 6 * SECOND).conforms


@given(
    st.integers(1, 20),
    st.integers(1, 100),
    st.integers(1, 10),
    st.lists(st.tuples(st.integers(-50 * SECOND, 50 * SECOND), st.integers(0, 4)), max_size=60),
)
def test_no_stretch_of_time_admits_more_than_burst_and_rate(
    limit: int, period: int, burst: int, moves: list[tuple[int, int]]
) -> None:
    rate, arrival, at = Rate(limit, period, burst), 0, START
    interval = -(-period * SECOND // limit)
    admitted: list[tuple[int, int]] = []
    for move, calls in moves:
        at = max(at + move, START) if move > 0 else at
        pace = step(rate, arrival, calls, at)
        if pace.conforms:
            arrival = pace.arrival
            admitted.append((at, calls))
    for first, (begin, _) in enumerate(admitted):
        total = 0
        for end, calls in admitted[first:]:
            total += calls
            assert total <= burst + (end - begin) // interval


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/minute:3", Rate(10, 60, 3)),
        (" 5/Second ", Rate(5, 1, 5)),
        ("10/30:2", Rate(10, 30, 2)),
        ("1/week", Rate(1, 604_800, 1)),
    ],
)
def test_rate_is_read(text: str, rate: Rate) -> None:
    assert parse_rate(text, "x") == rate


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("10", "cannot be read; write N/PERIOD"),
        ("10/minute:", "cannot be read"),
        ("-1/minute", "cannot be read"),
        ("1٣/minute", "cannot be read"),
        (10, "cannot be read"),
        ("10/fortnight", '"fortnight" is not one of second, minute'),
        ("10/0", "is not one of"),
        ("0/minute", "allows nothing"),
        ("5/minute:0", "allows nothing"),
        ("1/week:999999999", "to refill"),
    ],
)
def test_wrong_rate_says_what_and_where(value: object, says: str) -> None:
    with pytest.raises(Invalid, match=r"^--rate: ") as caught:
        parse_rate(value, "--rate")
    assert says in str(caught.value)
