"""What every ledger promises, over every ledger there is: limits, settling, and each call once."""

from dataclasses import replace

import pytest
from contract.ledgers import CALLS, DAY, MONEY, NOON, SECOND, apply, balance, commit, limited, release, reserve, usd

from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.budget import Amounts, Budget, Expire, Match, Rate, Refused, Reserve, Reserved, Scope, Settled
from fulcrum_mcp.ports import BudgetLedger

pytest_plugins = ["contract.every_ledger"]


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


@pytest.mark.parametrize("micros", [-1, -(2**70), MAX_AMOUNT + 1, 2**64])
def test_absurd_amounts_are_refused_even_by_a_warn_budget(ledger: BudgetLedger, micros: int) -> None:
    warn = replace(MONEY, action="warn")
    outcome = apply(ledger, reserve("a", warn, amounts=usd(micros)))
    assert isinstance(outcome, Refused)
    assert outcome.action == "hard"
    assert balance(ledger, warn) == {"usd_micros": (0, 0)}


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


def test_owners_with_equal_names_do_not_share(ledger: BudgetLedger) -> None:
    one = limited(CALLS, calls=1)
    foreign = Reserve("x", 0, "u", "w1", (Match(replace(one, tenant="u"), "bot"),), Amounts(), NOON, 60)
    outcomes = ledger.apply([reserve("a", one), foreign])
    assert [type(outcome) for outcome in outcomes] == [Reserved, Reserved]


def test_empty_batch_does_nothing(ledger: BudgetLedger) -> None:
    assert list(ledger.apply([])) == []
