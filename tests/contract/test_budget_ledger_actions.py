"""What every ledger promises about actions and rates: who is let through all the same, and what is told."""

from dataclasses import replace

from contract.ledgers import CALLS, MONEY, NOON, SECOND, apply, balance, commit, limited, reserve, usd

from fulcrum_mcp.core.budget import Amounts, Budget, Match, Rate, Refused, Reserved, Scope, Settled
from fulcrum_mcp.ports import BudgetLedger

pytest_plugins = ["contract.every_ledger"]


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


def test_approval_of_a_soft_budget_does_not_open_a_hard_one(ledger: BudgetLedger) -> None:
    assert isinstance(apply(ledger, reserve("a", limited(CALLS, calls=0), approved=["calls"])), Refused)


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


def test_negative_calls_do_not_refill_a_rate(ledger: BudgetLedger) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(1, 3_600, 1))
    ledger.apply([reserve("a", rated)])
    assert isinstance(apply(ledger, reserve("b", rated, amounts=Amounts(calls=-5))), Refused)
    assert isinstance(apply(ledger, reserve("c", rated)), Refused)


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
