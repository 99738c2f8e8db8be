"""What every ledger promises about time: windows, holds that end, what is told once a window."""

from dataclasses import replace

from contract.ledgers import CALLS, DAY, MONEY, NOON, SECOND, apply, balance, commit, limited, release, reserve, usd

from fulcrum_mcp.core.budget import Expire, Refused, Renew, Reserved, Settled
from fulcrum_mcp.ports import BudgetLedger

pytest_plugins = ["contract.every_ledger"]


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


def test_hold_may_last_for_ever(ledger: BudgetLedger) -> None:
    ledger.apply([reserve("a", CALLS, ttl=10**12), Expire(NOON + 5_000 * DAY)])
    assert ledger.open("w1") == [("a", 0)]


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


def test_thresholds_are_told_once_a_window_and_bucket(ledger: BudgetLedger) -> None:
    ten = replace(limited(CALLS, calls=10), thresholds=(50, 80, 100))

    def told(at: int, bucket: str) -> list[int | str]:
        operations = [reserve(f"{at}{bucket}{n}", ten, at=at, bucket=bucket) for n in range(10)]
        outcomes = ledger.apply([part for one in operations for part in (one, commit(one.call, at=at))])
        events = [event for outcome in outcomes if not isinstance(outcome, Refused) for event in outcome.events]
        assert {event.bucket for event in events} == {bucket}
        return [event.data["threshold"] for event in events if event.type == "budget.threshold"]

    assert [told(at, bucket) for at in (NOON, NOON + DAY) for bucket in ("bot", "b2")] == [[50, 80, 100]] * 4
