"""What every ledger promises, over every ledger there is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from contract.ledgers import CALLS, DAY, MONEY, NOON, SECOND, apply, balance, commit, limited, release, reserve
from contract.redis_books import REAL, open_books

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.redis import RedisLedger
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.budget import (
    Amounts,
    Budget,
    Expire,
    Match,
    Rate,
    Refused,
    Renew,
    Reserve,
    Reserved,
    Scope,
    Settled,
)
from fulcrum_mcp.ports import BudgetLedger


@pytest.fixture(params=["memory", "sqlite", *REAL])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BudgetLedger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    if request.param in {"valkey_url", "redis_url"}:
        books = open_books(request.getfixturevalue(request.param))
        yield RedisLedger(books)
        books.close()
        return
    store = SqliteStore(tmp_path / "ledger.db")
    yield store.ledger
    store.close()


def usd(micros: int) -> Amounts:
    return Amounts(usd_micros=micros)


def test_calls_are_admitted_up_to_the_limit_and_then_refused_with_what_is_left(ledger: BudgetLedger) -> None:
    outcomes = ledger.apply([reserve(f"c{n}", CALLS) for n in range(6)])
    assert [outcome.remaining[0].left for outcome in outcomes if isinstance(outcome, Reserved)] == [4, 3, 2, 1, 0]
    assert outcomes[5] == Refused("hard", CALLS, "bot", "calls", 5, 0, NOON + DAY // 2, 43_200)


def test_remaining_names_the_budget_and_when_it_resets(ledger: BudgetLedger) -> None:
    outcome = apply(ledger, reserve("c", CALLS))
    assert isinstance(outcome, Reserved)
    assert outcome.remaining == (("calls", "five a day", "calls", 5, 4, NOON + DAY // 2),)


def test_buckets_do_not_share(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    outcomes = ledger.apply([reserve("a", one), reserve("b", one, bucket="other"), reserve("c", one)])
    assert [type(outcome) for outcome in outcomes] == [Reserved, Reserved, Refused]


def test_all_budgets_are_taken_together_or_not_at_all(ledger: BudgetLedger) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(1, 3_600, 1))
    outcome = apply(ledger, reserve("a", CALLS, rated, limited(MONEY, usd_micros=10), amounts=usd(11)))
    assert isinstance(outcome, Refused)
    assert outcome.budget.id == "money"
    assert balance(ledger, CALLS) == {"calls": (0, 0)}
    assert isinstance(apply(ledger, reserve("b", rated)), Reserved)


def test_budget_named_twice_counts_once(ledger: BudgetLedger) -> None:
    for number in (1, 2):
        assert isinstance(apply(ledger, reserve(f"c{number}", CALLS, CALLS, limited(CALLS, calls=1))), Reserved)
        assert balance(ledger, CALLS) == {"calls": (0, number)}


def test_tokens_count_input_and_output(ledger: BudgetLedger) -> None:
    tokens = limited(CALLS, tokens=100, output_tokens=50)
    assert isinstance(apply(ledger, reserve("a", tokens, amounts=Amounts(input_tokens=60, output_tokens=40))), Reserved)
    assert isinstance(apply(ledger, reserve("b", tokens, amounts=Amounts(input_tokens=1))), Refused)
    assert balance(ledger, tokens) == {"tokens": (0, 100), "output_tokens": (0, 40)}


def test_refusal_for_more_than_the_limit_says_that_waiting_does_not_help(ledger: BudgetLedger) -> None:
    outcome = apply(ledger, reserve("a", MONEY, amounts=usd(1_000_001)))
    assert isinstance(outcome, Refused)
    assert (outcome.retry_after, outcome.left) == (0, 1_000_000)


def test_calls_that_cost_nothing_pass_when_the_money_is_gone(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(1_000_000))])
    assert isinstance(apply(ledger, reserve("b", MONEY, amounts=usd(1))), Refused)
    assert isinstance(apply(ledger, reserve("c", MONEY)), Reserved)


def test_limit_of_zero_blocks_all_but_what_costs_nothing(ledger: BudgetLedger) -> None:
    shut = limited(MONEY, usd_micros=0)
    assert isinstance(apply(ledger, reserve("a", shut, amounts=usd(1))), Refused)
    assert isinstance(apply(ledger, reserve("b", shut)), Reserved)


def test_commit_books_the_actual_cost_and_frees_the_rest(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(900_000))])
    assert apply(ledger, commit("a", usd(100_000))) == Settled(1)
    assert balance(ledger, MONEY) == {"usd_micros": (100_000, 0)}
    assert isinstance(apply(ledger, reserve("b", MONEY, amounts=usd(900_000))), Reserved)


def test_commit_without_a_cost_books_the_estimate(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(7)), commit("a")])
    assert balance(ledger, MONEY) == {"usd_micros": (7, 0)}


def test_release_gives_everything_back(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS, MONEY, amounts=usd(7)), release("a")])
    assert balance(ledger, CALLS) | balance(ledger, MONEY) == {"calls": (0, 0), "usd_micros": (0, 0)}


def test_settling_twice_does_nothing_the_second_time(ledger: BudgetLedger) -> None:
    outcomes = ledger.apply([reserve("a", CALLS), commit("a"), commit("a", Amounts(calls=9)), release("a")])
    assert outcomes[1:] == [Settled(1), Settled(0), Settled(0)]
    assert balance(ledger, CALLS) == {"calls": (1, 0)}


def test_settling_what_was_never_held_does_nothing(ledger: BudgetLedger) -> None:
    assert ledger.apply([commit("x"), release("y")]) == [Settled(0), Settled(0)]


def test_reservation_that_comes_after_its_release_admits_nothing(ledger: BudgetLedger) -> None:
    """A server that was paused still works off what it had received: then the release may be first."""
    assert apply(ledger, release("a")) == Settled(0)
    assert apply(ledger, reserve("a", CALLS)) == Reserved(repeated=True, settled=True)
    assert ledger.apply([commit("a"), release("a")]) == [Settled(0), Settled(0)]
    assert balance(ledger, CALLS) == {"calls": (0, 0)}
    assert ledger.open("w1") == []
    assert isinstance(apply(ledger, reserve("a", CALLS, leg=1)), Reserved)


def test_cost_above_the_estimate_is_booked_recorded_and_blocks_what_follows(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(10))])
    outcome = apply(ledger, commit("a", usd(2_000_000)))
    assert isinstance(outcome, Settled)
    assert [event.type for event in outcome.events] == ["budget.overrun", "budget.threshold", "budget.threshold"]
    overrun = outcome.events[0]
    assert (overrun.tenant, overrun.budget, overrun.bucket) == ("t", "money", "bot")
    assert overrun.data["estimate"] == 10
    assert overrun.data["actual"] == overrun.data["committed"] == 2_000_000
    blocked = apply(ledger, reserve("b", MONEY, amounts=usd(1)))
    assert isinstance(blocked, Refused)
    assert blocked.left == 0
    assert isinstance(apply(ledger, reserve("c", MONEY)), Reserved)


def test_cost_of_an_amount_that_was_estimated_at_nothing_is_still_booked(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY), commit("a", usd(5))])
    assert balance(ledger, MONEY) == {"usd_micros": (5, 0)}


def test_same_call_and_leg_is_held_once(ledger: BudgetLedger) -> None:
    first, again = ledger.apply([reserve("a", CALLS), reserve("a", CALLS)])
    later = apply(ledger, reserve("a", CALLS, at=NOON + SECOND))
    assert isinstance(first, Reserved)
    assert not first.repeated
    assert again == later == Reserved(repeated=True)
    assert balance(ledger, CALLS) == {"calls": (0, 1)}


@pytest.mark.parametrize(
    "end", [commit("a"), release("a"), Expire(NOON + 61 * SECOND)], ids=lambda end: type(end).__name__
)
def test_call_that_ended_is_never_admitted_again(ledger: BudgetLedger, end: Expire) -> None:
    ledger.apply([reserve("a", CALLS), end])
    before = balance(ledger, CALLS)
    assert apply(ledger, reserve("a", CALLS)) == Reserved(repeated=True, settled=True)
    assert balance(ledger, CALLS) == before


def test_every_leg_is_admitted_on_its_own(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS), reserve("a", CALLS, leg=1), commit("a", leg=1)])
    assert balance(ledger, CALLS) == {"calls": (1, 1)}
    assert ledger.open("w1") == [("a", 0)]


def test_call_without_budgets_is_admitted_once_too(ledger: BudgetLedger) -> None:
    assert ledger.apply([reserve("a"), reserve("a")]) == [Reserved(), Reserved(repeated=True)]
    assert ledger.open("w1") == [("a", 0)]


def test_refused_call_may_ask_again(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    ledger.apply([reserve("a", one), reserve("b", one), release("a")])
    outcome = apply(ledger, reserve("b", one))
    assert isinstance(outcome, Reserved)
    assert not outcome.repeated
    assert balance(ledger, one) == {"calls": (0, 1)}


def test_window_that_passed_gives_a_new_allowance(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    tomorrow = NOON + DAY
    ledger.apply([reserve("a", one), commit("a")])
    assert isinstance(apply(ledger, reserve("b", one, at=tomorrow)), Reserved)
    assert balance(ledger, one, tomorrow) == {"calls": (0, 1)}


def test_call_is_booked_in_the_window_in_which_it_began(ledger: BudgetLedger) -> None:
    tomorrow = NOON + DAY
    ledger.apply([reserve("a", CALLS), commit("a", at=tomorrow)])
    assert balance(ledger, CALLS) == {"calls": (1, 0)}
    assert balance(ledger, CALLS, tomorrow) == {"calls": (0, 0)}


def test_clock_that_goes_back_does_not_reopen_a_window(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    ledger.apply([reserve("a", one), commit("a"), reserve("b", one, at=NOON + DAY), commit("b")])
    assert isinstance(apply(ledger, reserve("c", one, at=NOON + SECOND)), Refused)


def test_infinite_budget_never_resets(ledger: BudgetLedger) -> None:
    once = replace(limited(CALLS, calls=1), period="infinite")
    ledger.apply([reserve("a", once), commit("a")])
    outcome = apply(ledger, reserve("b", once, at=NOON + 5_000 * DAY))
    assert outcome == Refused("hard", once, "bot", "calls", 1, 0, 0, 0)


def test_hold_that_nobody_renews_is_booked_at_its_estimate(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(7)), reserve("b", MONEY, amounts=usd(8), ttl=90)])
    assert apply(ledger, Expire(NOON + 59 * SECOND)) == Settled(0)
    assert apply(ledger, Expire(NOON + 60 * SECOND)) == Settled(1)
    assert balance(ledger, MONEY) == {"usd_micros": (7, 8)}
    assert ledger.open("w1") == [("b", 0)]


def test_true_cost_that_comes_after_expiry_replaces_the_estimate_once(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(7)), Expire(NOON + 60 * SECOND)])
    assert ledger.apply([commit("a", usd(3)), commit("a", usd(9))]) == [Settled(1), Settled(0)]
    assert balance(ledger, MONEY) == {"usd_micros": (3, 0)}


def test_hold_that_expired_is_not_given_back(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", MONEY, amounts=usd(7)), Expire(NOON + 60 * SECOND)])
    assert ledger.apply([release("a"), commit("a")]) == [Settled(0), Settled(0)]
    assert balance(ledger, MONEY) == {"usd_micros": (7, 0)}


def test_renewal_keeps_the_holds_of_its_writer_only(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS), reserve("b", CALLS), reserve("c", CALLS, writer="w2"), commit("b")])
    assert apply(ledger, Renew("w1", NOON + 50 * SECOND, 60)) == Settled(1)
    assert apply(ledger, Expire(NOON + 100 * SECOND)) == Settled(1)
    assert (ledger.open("w1"), ledger.open("w2")) == ([("a", 0)], [])


def test_renewal_never_shortens(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS, ttl=600), Renew("w1", NOON, 1), Expire(NOON + 599 * SECOND)])
    assert ledger.open("w1") == [("a", 0)]


def test_warn_budget_admits_and_tells_once_a_window(ledger: BudgetLedger) -> None:
    warn = replace(limited(CALLS, calls=1), action="warn", thresholds=())
    outcomes = ledger.apply([reserve(f"c{n}", warn) for n in range(4)])
    told = [[event.type for event in outcome.events] for outcome in outcomes if isinstance(outcome, Reserved)]
    assert told == [[], ["budget.warned"], [], []]
    assert balance(ledger, warn) == {"calls": (0, 4)}


def test_soft_budget_asks_until_a_person_allowed_it(ledger: BudgetLedger) -> None:
    soft = replace(limited(CALLS, calls=1), action="soft")
    _, asked, allowed, other = ledger.apply(
        [
            reserve("a", soft),
            reserve("b", soft),
            reserve("b", soft, approved=["calls"]),
            reserve("c", soft, approved=["another"]),
        ]
    )
    assert isinstance(asked, Refused)
    assert asked.action == "soft"
    assert isinstance(allowed, Reserved)
    assert isinstance(other, Refused)


def test_hard_refusal_is_told_before_a_soft_one_whatever_the_order(ledger: BudgetLedger) -> None:
    soft = replace(limited(MONEY, usd_micros=0), action="soft")
    hard = limited(CALLS, calls=0)
    for number, budgets in enumerate([(soft, hard), (hard, soft)]):
        outcome = apply(ledger, reserve(f"c{number}", *budgets, amounts=usd(1)))
        assert isinstance(outcome, Refused)
        assert (outcome.action, outcome.budget.id) == ("hard", "calls")


def test_refusal_that_lasts_longest_is_told(ledger: BudgetLedger) -> None:
    shut = limited(CALLS, calls=0)
    once = replace(limited(MONEY, calls=1), period="infinite")
    hour = replace(limited(CALLS, calls=1), id="hour", period="hour")
    ledger.apply([reserve("a", once, hour)])
    for number, budgets in enumerate([(once, hour), (hour, once)]):
        outcome = apply(ledger, reserve(f"c{number}", *budgets))
        assert isinstance(outcome, Refused)
        assert outcome.budget.id == "money"
    assert isinstance(apply(ledger, reserve("d", shut)), Refused)


def test_state_is_kept_between_batches(ledger: BudgetLedger) -> None:
    ten = replace(limited(CALLS, calls=4), thresholds=(50,))
    slow = Budget("slow", "t", "slow", Scope("agent"), action="warn", rate=Rate(1, 3_600, 1))
    outcomes = [apply(ledger, reserve(f"c{n}", ten, slow)) for n in range(4)]
    told = [[event.type for event in outcome.events] for outcome in outcomes if isinstance(outcome, Reserved)]
    assert told == [[], ["budget.threshold", "budget.warned"], [], []]
    settled = apply(ledger, commit("c0", Amounts(calls=2)))
    assert isinstance(settled, Settled)
    assert [(event.type, event.data["limit"]) for event in settled.events] == [("budget.overrun", 4)]


def test_threshold_of_a_limit_of_zero_is_not_told_by_what_costs_nothing(ledger: BudgetLedger) -> None:
    outcome = apply(ledger, reserve("a", limited(MONEY, usd_micros=0)))
    assert isinstance(outcome, Reserved)
    assert outcome.events == ()


def test_hold_may_last_for_ever(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS, ttl=10**12), Expire(NOON + 5_000 * DAY)])
    assert ledger.open("w1") == [("a", 0)]


def test_approval_of_a_soft_budget_does_not_open_a_hard_one(ledger: BudgetLedger) -> None:
    assert isinstance(apply(ledger, reserve("a", limited(CALLS, calls=0), approved=["calls"])), Refused)


def test_thresholds_are_told_once_a_window_and_bucket(ledger: BudgetLedger) -> None:
    ten = replace(limited(CALLS, calls=10), thresholds=(50, 80, 100))

    def told(at: int, bucket: str) -> list[int | str]:
        operations = [reserve(f"{at}{bucket}{n}", ten, at=at, bucket=bucket) for n in range(10)]
        outcomes = ledger.apply([part for one in operations for part in (one, commit(one.call, at=at))])
        events = [event for outcome in outcomes if not isinstance(outcome, Refused) for event in outcome.events]
        assert {event.bucket for event in events} == {bucket}
        return [event.data["threshold"] for event in events if event.type == "budget.threshold"]

    assert [told(at, bucket) for at in (NOON, NOON + DAY) for bucket in ("bot", "b2")] == [[50, 80, 100]] * 4


def test_rate_holds_in_the_same_step(ledger: BudgetLedger) -> None:
    rated = replace(CALLS, rate=Rate(10, 60, 2))
    outcomes = ledger.apply([reserve(f"c{n}", rated) for n in range(3)])
    assert outcomes[2] == Refused("hard", rated, "bot", "rate", 10, 0, NOON + 6 * SECOND, 6)
    assert balance(ledger, rated) == {"calls": (0, 2)}
    assert isinstance(apply(ledger, reserve("d", rated, at=NOON + 6 * SECOND)), Reserved)


def test_legs_that_cost_no_call_do_not_use_up_a_rate(ledger: BudgetLedger) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(1, 3_600, 1))
    ledger.apply([reserve("a", rated)])
    assert isinstance(apply(ledger, reserve("a", rated, leg=1, amounts=Amounts(calls=0))), Reserved)
    assert isinstance(apply(ledger, reserve("b", rated)), Refused)


def test_warn_rate_tells_once_while_it_is_exceeded(ledger: BudgetLedger) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), action="warn", rate=Rate(1, 60, 1))
    moments = [NOON, NOON, NOON, NOON + 300 * SECOND, NOON + 300 * SECOND]
    outcomes = ledger.apply([reserve(f"c{n}", rated, at=at) for n, at in enumerate(moments)])
    told = [len(outcome.events) for outcome in outcomes if isinstance(outcome, Reserved)]
    assert told == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("micros", [-1, -(2**70), MAX_AMOUNT + 1, 2**64])
def test_absurd_amounts_are_refused_even_by_a_warn_budget(ledger: BudgetLedger, micros: int) -> None:
    warn = replace(MONEY, action="warn")
    outcome = apply(ledger, reserve("a", warn, amounts=usd(micros)))
    assert isinstance(outcome, Refused)
    assert outcome.action == "hard"
    assert balance(ledger, warn) == {"usd_micros": (0, 0)}


def test_negative_calls_do_not_refill_a_rate(ledger: BudgetLedger) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(1, 3_600, 1))
    ledger.apply([reserve("a", rated)])
    assert isinstance(apply(ledger, reserve("b", rated, amounts=Amounts(calls=-5))), Refused)
    assert isinstance(apply(ledger, reserve("c", rated)), Refused)


def test_balances_never_pass_the_largest_amount(ledger: BudgetLedger) -> None:
    wide = replace(limited(MONEY, usd_micros=MAX_AMOUNT), action="warn")
    ledger.apply([reserve("a", wide, amounts=usd(MAX_AMOUNT)), reserve("b", wide), commit("b", usd(2**80))])
    ledger.apply([reserve("c", wide, amounts=usd(1)), commit("a", usd(-(2**80)))])
    ledger.apply([reserve("d", wide), commit("d", usd(MAX_AMOUNT))])
    assert balance(ledger, wide) == {"usd_micros": (MAX_AMOUNT, 0)}


def test_one_bad_operation_does_not_spoil_the_batch(ledger: BudgetLedger) -> None:
    bad, good = ledger.apply([reserve("a", MONEY, amounts=usd(2**90)), reserve("b", MONEY, amounts=usd(1))])
    assert isinstance(bad, Refused)
    assert isinstance(good, Reserved)


def test_changed_limit_holds_from_the_next_call_on(ledger: BudgetLedger) -> None:
    ledger.apply([reserve(f"c{n}", CALLS) for n in range(5)])
    assert isinstance(apply(ledger, reserve("d", limited(CALLS, calls=6))), Reserved)
    assert isinstance(apply(ledger, reserve("e", limited(CALLS, calls=3))), Refused)


def test_period_that_grows_keeps_what_was_spent_since_its_new_window_began(ledger: BudgetLedger) -> None:
    morning = 1_795_478_400 * SECOND
    hourly, daily = replace(limited(CALLS, calls=2), period="hour"), limited(CALLS, calls=2)
    ledger.apply([reserve("a", hourly, at=morning)])
    outcome = apply(ledger, reserve("b", daily, at=morning + 7_200 * SECOND))
    assert isinstance(outcome, Reserved)
    assert (outcome.remaining[0].left, outcome.remaining[0].resets_at) == (0, morning + DAY)
    assert isinstance(apply(ledger, reserve("c", daily, at=morning + 7_201 * SECOND)), Refused)


def test_usage_lists_every_bucket_with_zeros_where_the_window_is_new(ledger: BudgetLedger) -> None:
    both = limited(CALLS, calls=5, usd_micros=9)
    ledger.apply([reserve("a", both), reserve("b", both, bucket="b2", at=NOON + DAY, amounts=usd(3))])
    found = ledger.usage([both, MONEY], NOON + DAY)
    assert [(u.bucket, dict(u.committed), dict(u.reserved)) for u in found] == [
        ("b2", {"calls": 0, "usd_micros": 0}, {"calls": 1, "usd_micros": 3}),
        ("bot", {"calls": 0, "usd_micros": 0}, {"calls": 0, "usd_micros": 0}),
    ]
    assert {(u.window_start, u.resets_at) for u in found} == {(NOON + DAY // 2, NOON + 3 * DAY // 2)}


def test_peek_tells_what_is_left_and_takes_nothing(ledger: BudgetLedger) -> None:
    rated = replace(CALLS, rate=Rate(10, 60, 3))
    matches = (Match(rated, "bot"), Match(MONEY, "new"))
    assert [left.left for left in ledger.peek(matches, NOON)] == [5, 3, 1_000_000]
    ledger.apply([reserve("a", rated), reserve("b", rated), commit("b")])
    for _ in range(2):
        assert [(left.amount, left.left) for left in ledger.peek(matches, NOON)] == [
            ("calls", 3),
            ("rate", 1),
            ("usd_micros", 1_000_000),
        ]


def test_owners_with_equal_names_do_not_share(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    foreign = Reserve("x", 0, "u", "w1", (Match(replace(one, tenant="u"), "bot"),), Amounts(), NOON, 60)
    outcomes = ledger.apply([reserve("a", one), foreign])
    assert [type(outcome) for outcome in outcomes] == [Reserved, Reserved]


def test_empty_batch_does_nothing(ledger: BudgetLedger) -> None:
    assert list(ledger.apply([])) == []
