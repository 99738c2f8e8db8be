"""What the store knows becomes the ledger's book: spent, open, and nothing of windows that are over."""

from fulcrum_mcp.core.account import State
from fulcrum_mcp.core.admission import admit, settle
from fulcrum_mcp.core.books import Books, Place, Spent, Unsettled, book_of
from fulcrum_mcp.core.budget import Amounts, Budget, Commit, Match, Refused, Reserve, Reserved, Scope

DAY = 86_400 * 10**9
AT = 20_000 * DAY + 5
DAILY = Budget("d", "acme", "daily", Scope("agent"), {"calls": 10, "tokens": 100}, thresholds=(50, 80))
EVER = Budget("e", "", "shared", Scope("global"), {"usd_micros": 50}, period="infinite")
TODAY = Place("acme", "d", "ann", 20_000 * DAY)
ALWAYS = Place("", "e", "global", 0)


def test_settled_and_open_calls_count_in_every_limited_amount() -> None:
    books = Books(
        AT,
        (Spent(TODAY, Amounts(4, 0, 10, 20)), Spent(ALWAYS, Amounts(4, 30))),
        (Unsettled("c", 0, "acme", "w", Amounts(2, 15), (TODAY, ALWAYS)),),
    )
    book = book_of(books, [DAILY, EVER])
    committed = {key[1:4]: account.committed for key, account in book.accounts.items()}
    assert committed == {("d", "ann", "calls"): 6, ("d", "ann", "tokens"): 30, ("e", "global", "usd_micros"): 45}
    assert {account.reserved for account in book.accounts.values()} == {0}
    assert book.holds["c", 0].state is State.EXPIRED
    assert {account.key[3]: account.notified for account in book.accounts.values()} == {
        "calls": 50,
        "tokens": 0,
        "usd_micros": 80,
    }


def test_an_open_call_may_still_tell_its_cost_once() -> None:
    book = book_of(Books(AT, (), (Unsettled("c", 0, "acme", "w", Amounts(9), (TODAY,)),)), [DAILY])
    ask = Reserve("n", 0, "acme", "w", (Match(DAILY, "ann"),), Amounts(2), AT, 90)
    assert isinstance(admit(book, ask), Refused)
    assert settle(book, Commit("c", 0, Amounts(1), AT)).count == 1
    assert settle(book, Commit("c", 0, Amounts(1), AT)).count == 0
    assert isinstance(admit(book, ask), Reserved)


def test_windows_that_ended_and_budgets_that_are_gone_are_left_out() -> None:
    books = Books(
        AT,
        (
            Spent(Place("acme", "d", "ann", 19_999 * DAY), Amounts(4)),
            Spent(Place("acme", "d", "ann", 20_000 * DAY + 1), Amounts(4)),
            Spent(Place("acme", "gone", "ann", 20_000 * DAY), Amounts(4)),
            Spent(Place("other", "d", "ann", 20_000 * DAY), Amounts(4)),
        ),
    )
    assert book_of(books, [DAILY]).accounts == {}


def test_every_shape_of_a_budget_counts_and_windows_that_begin_together_end_last() -> None:
    month = DAILY.id, DAILY.tenant, DAILY.name, DAILY.scope
    first = 20_058 * DAY  # the first day of a month
    shapes = [DAILY, Budget(*month, {"calls": 7, "bytes": 9}, "month"), Budget(*month, {"calls": 5}, "infinite")]
    spent = tuple(Spent(Place("acme", "d", "ann", starts), Amounts(4)) for starts in (first, first + DAY, 0))
    for order in (shapes, shapes[::-1]):
        book = book_of(Books(first + DAY + 5, spent), order)
        assert {key[3:]: (account.committed, account.ends) for key, account in book.accounts.items()} == {
            ("calls", first): (4, first + 31 * DAY),
            ("bytes", first): (0, first + 31 * DAY),
            ("calls", first + DAY): (4, first + 2 * DAY),
            ("tokens", first + DAY): (0, first + 2 * DAY),
            ("calls", 0): (4, 0),
        }
    both = book_of(Books(first + 5, spent[:1]), shapes).accounts
    assert {key[3]: (account.committed, account.limit, account.ends) for key, account in both.items()} == {
        "calls": (4, 10, first + 31 * DAY),
        "tokens": (0, 100, first + DAY),
        "bytes": (0, 9, first + 31 * DAY),
    }
