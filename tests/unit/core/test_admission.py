"""The rules of the ledger over books in memory: all accounts together or none, and what a settlement changes."""

from fulcrum_mcp.core.account import Book, State
from fulcrum_mcp.core.admission import admit, look, settle
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Rate, Refused, Release, Reserve, Reserved, Scope

SECOND = 1_000_000_000
NOON = 1_780_056_000 * SECOND
WIDE = Budget("wide", "t", "wide", Scope("agent"), {"calls": 10})
NARROW = Budget("narrow", "t", "narrow", Scope("tool"), {"calls": 1})
SOFT = Budget("soft", "t", "soft", Scope("agent"), {"calls": 1}, action="soft")
SLOW = Budget("slow", "t", "slow", Scope("agent"), rate=Rate(limit=1, period=60, burst=1))


def _reserve(call: str, *budgets: Budget, approved: frozenset[str] = frozenset()) -> Reserve:
    matches = tuple(Match(budget, "a") for budget in budgets)
    return Reserve(call, 0, "t", "w", matches, Amounts(), NOON, 60, approved)


def _used(book: Book, budget: str) -> tuple[int, int]:
    found = [account for key, account in book.accounts.items() if key[1] == budget]
    return sum(account.committed for account in found), sum(account.reserved for account in found)


def test_a_call_that_one_budget_refuses_takes_from_no_other() -> None:
    book = Book()
    assert isinstance(admit(book, _reserve("one", WIDE, NARROW)), Reserved)
    refused = admit(book, _reserve("two", WIDE, NARROW))
    assert isinstance(refused, Refused)
    assert (refused.budget, refused.left) == (NARROW, 0)
    assert _used(book, "wide") == (0, 1)


def test_the_same_call_and_leg_is_held_once() -> None:
    book = Book()
    admit(book, _reserve("one", WIDE))
    again = admit(book, _reserve("one", WIDE))
    assert isinstance(again, Reserved)
    assert again.repeated
    assert _used(book, "wide") == (0, 1)


def test_a_hard_refusal_is_told_before_a_soft_one() -> None:
    book = Book()
    admit(book, _reserve("one", SOFT, NARROW))
    refused = admit(book, _reserve("two", SOFT, NARROW))
    assert isinstance(refused, Refused)
    assert refused.action == "hard"


def test_a_soft_budget_lets_an_approved_call_pass() -> None:
    book = Book()
    admit(book, _reserve("one", SOFT))
    assert isinstance(admit(book, _reserve("two", SOFT)), Refused)
    assert isinstance(admit(book, _reserve("three", SOFT, approved=frozenset({"soft"}))), Reserved)


def test_a_rate_refuses_and_says_when_to_come_back() -> None:
    book = Book()
    admit(book, _reserve("one", SLOW))
    refused = admit(book, _reserve("two", SLOW))
    assert isinstance(refused, Refused)
    assert (refused.amount, refused.retry_after) == ("rate", 60)


def test_a_release_gives_back_and_a_commit_books_once() -> None:
    book = Book()
    admit(book, _reserve("one", WIDE))
    admit(book, _reserve("two", WIDE))
    assert settle(book, Release("one", 0, NOON)).count == 1
    assert settle(book, Commit("two", 0, Amounts(calls=3), NOON)).count == 1
    assert settle(book, Commit("two", 0, Amounts(calls=3), NOON)).count == 0
    assert _used(book, "wide") == (3, 0)
    assert {hold.call: hold.state for hold in book.holds.values()} == {"one": State.RELEASED, "two": State.COMMITTED}


def test_looking_changes_nothing() -> None:
    book = Book()
    admit(book, _reserve("one", WIDE))
    before = _used(book, "wide")
    (remaining,) = look(book, (Match(WIDE, "a"),), NOON)
    assert remaining.left == 9
    assert _used(book, "wide") == before
