"""Books made anew from what the store knows."""

from collections.abc import Iterator
from typing import Any

import pytest
from contract.ledgers import CALLS, DAY, MONEY, NOON, SECOND, apply, balance, commit, reserve

from fulcrum_adapters.redis import RedisConfig, RedisHistory, RedisLedger, RedisStore
from fulcrum_mcp.core.account import Book, Hold
from fulcrum_mcp.core.books import Books, Past, Place, Spent, Unsettled, book_of
from fulcrum_mcp.core.budget import Amounts, Budget, Rate, Refused, Reserved, Scope, Settled
from fulcrum_mcp.core.window import window_at
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import HistoryView

pytestmark = [pytest.mark.service, pytest.mark.parts]

TODAY = window_at("day", "UTC", NOON).start
PLACE = Place("t", "money", "bot", TODAY)


@pytest.fixture
def store(valkey_url: str) -> Iterator[RedisStore]:
    opened = RedisStore(RedisConfig(valkey_url, timeout=2.0))
    yield opened
    opened.close()


def rebuilt(store: RedisStore, book: Book, past: Past = Past(), at: int = NOON) -> RedisLedger:  # noqa: B008 (immutable)
    ledger = RedisLedger(store)
    run, _ = ledger.epoch()
    assert ledger.rebuild(run, book, past, at)
    assert ledger.epoch() == (run, True)
    return ledger


def test_what_was_spent_counts_and_what_is_open_may_still_learn_its_cost(store: RedisStore) -> None:
    unsettled = Unsettled("open", 0, "t", "w1", Amounts(usd_micros=300_000), (PLACE,))
    books = Books(NOON, (Spent(PLACE, Amounts(usd_micros=600_000)),), (unsettled,))
    ledger = rebuilt(store, book_of(books, [MONEY]))
    assert balance(ledger, MONEY) == {"usd_micros": (900_000, 0)}
    assert isinstance(apply(ledger, reserve("a", MONEY, amounts=Amounts(usd_micros=100_001))), Refused)
    assert apply(ledger, reserve("open", MONEY)) == Reserved(repeated=True, settled=True)
    assert apply(ledger, commit("open", Amounts(usd_micros=100_000))) == Settled(1)
    assert balance(ledger, MONEY) == {"usd_micros": (700_000, 0)}
    told = apply(ledger, reserve("b", MONEY, amounts=Amounts(usd_micros=100_000)))
    assert isinstance(told, Reserved)
    assert told.events == (), "80 percent were told before"


def test_holds_that_are_open_in_the_book_are_open(store: RedisStore) -> None:
    book = book_of(Books(NOON, (Spent(PLACE, Amounts()),)), [MONEY])
    (account,) = book.accounts.values()
    account.reserved = 5
    book.holds["a", 1] = Hold("a", 1, "t", "w1", NOON + 60 * SECOND, [(account, 5)])
    ledger = rebuilt(store, book)
    assert ledger.open("w1") == [("a", 1)]
    assert balance(ledger, MONEY) == {"usd_micros": (0, 5)}
    assert apply(ledger, commit("a", leg=1)) == Settled(1)
    assert balance(ledger, MONEY) == {"usd_micros": (5, 0)}


def test_rates_begin_as_if_just_emptied(store: RedisStore) -> None:
    rated = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(10, 60, 3))
    ledger = rebuilt(store, Book())
    assert isinstance(apply(ledger, reserve("a", rated, at=NOON)), Refused)
    assert isinstance(apply(ledger, reserve("b", rated, at=NOON + 6 * SECOND)), Reserved)
    assert isinstance(apply(ledger, reserve("c", rated, at=NOON + 6 * SECOND)), Refused)


def test_history_comes_back(store: RedisStore) -> None:
    past = Past(
        (("t", "envelope:e", "pii", NOON - DAY), ("t", "key:k", "old", NOON - DAY), ("t", "key:k", "new", NOON)),
        (
            ("t", "envelope:e", "files__read", 7, NOON - DAY),
            ("t", "key:k", "files__read", 2, NOON),
            ("t", "key:k", "files__read", 3, NOON - 60 * SECOND),
            ("t", "key:k", "files__read", 99, NOON - DAY),
        ),
    )
    rebuilt(store, Book(), past)
    history = RedisHistory(store, clock=lambda: NOON)
    assert history.read("t", "envelope:e") == HistoryView(("pii",), {"files__read": 7})
    assert history.read("t", "key:k") == HistoryView(("new",), {"files__read": 5})
    history.count("t", "key:k", "files__read", NOON)
    assert history.read("t", "key:k").calls == {"files__read": 6}


def test_books_are_taken_over_once_and_for_the_present_run_only(store: RedisStore) -> None:
    ledger = rebuilt(store, Book())
    run, _ = ledger.epoch()
    ledger.apply([reserve("a", CALLS)])
    assert not ledger.rebuild(run, Book(), Past(), NOON)
    assert not ledger.rebuild("another", Book(), Past(), NOON)
    assert balance(ledger, CALLS) == {"calls": (0, 1)}


def test_rates_are_full_where_nothing_can_have_been_lost_and_empty_where_it_may(store: RedisStore) -> None:
    slow = Budget("slow", "t", "slow", Scope("agent"), rate=Rate(2, 3600, 2))
    ledger = RedisLedger(store)
    run, _ = ledger.epoch()
    assert ledger.rebuild(run, Book(), Past(), NOON, beginning=True)
    assert isinstance(apply(ledger, reserve("a", slow)), Reserved)
    store.server.command("FLUSHALL")
    run, believed = ledger.epoch()
    assert not believed
    assert ledger.rebuild(run, Book(), Past(), NOON)
    assert isinstance(apply(ledger, reserve("b", slow)), Refused)


@pytest.mark.parametrize("loss", [("FLUSHALL",), ("DEL", "fulcrum:epoch")])
def test_each_loss_in_one_run_of_the_server_is_an_epoch_of_its_own(store: RedisStore, loss: tuple[str, ...]) -> None:
    """Else nobody would say anew how far it had written, and the books could be made from a store that lags."""
    ledger = RedisLedger(store)
    first, _ = ledger.epoch()
    assert ledger.epoch() == (first, False), "it keeps its name until the books are made"
    assert ledger.rebuild(first, Book(), Past(), NOON)
    assert ledger.epoch() == (first, True)
    store.server.command(*loss)
    second, believed = ledger.epoch()
    assert (second != first, believed) == (True, False)
    assert not ledger.rebuild(first, Book(), Past(), NOON)
    other = RedisStore(store.config)
    assert RedisLedger(other).epoch() == (second, False), "all are told the same name"
    assert ledger.rebuild(second, Book(), Past(), NOON)
    other.close()


def test_what_was_sent_to_lost_books_does_not_reach_those_that_replace_them(store: RedisStore) -> None:
    """It may arrive late, and the release that was sent after it was lost with the books."""
    rebuilt(store, Book())
    late = RedisStore(store.config)
    RedisLedger(late).epoch()
    store.server.command("FLUSHALL")
    ledger = rebuilt(store, Book())
    with pytest.raises(Unavailable, match="being rebuilt"):
        RedisLedger(late).apply([reserve("a", CALLS)])
    assert ledger.open("w1") == []
    assert RedisLedger(late).epoch()[1]
    assert isinstance(apply(RedisLedger(late), reserve("a", CALLS)), Reserved)
    late.close()


def test_old_books_are_not_mixed_with_new_ones(store: RedisStore) -> None:
    ledger = rebuilt(store, Book())
    ledger.apply([reserve("a", CALLS), reserve("b", CALLS)])
    store.server.command("DEL", "fulcrum:epoch")
    ledger = rebuilt(store, Book())
    assert balance(ledger, CALLS) == {"calls": (0, 0)}
    assert ledger.open("w1") == []
    assert isinstance(apply(ledger, reserve("a", CALLS)), Reserved)


def big_book(number: int) -> Book:
    places = [Place("t", "money", f"bucket{n}", TODAY) for n in range(number)]
    return book_of(Books(NOON, tuple(Spent(place, Amounts(usd_micros=n)) for n, place in enumerate(places))), [MONEY])


def test_big_book_is_taken_over_in_pieces(store: RedisStore) -> None:
    ledger = rebuilt(store, big_book(1_500))
    found = ledger.usage([MONEY], NOON)
    assert {usage.bucket: usage.committed["usd_micros"] for usage in found} == {f"bucket{n}": n for n in range(1_500)}


@pytest.mark.parametrize("harm", ["FLUSHALL", "another"])
def test_pieces_that_were_lost_on_the_way_are_missed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    ledger, steps = RedisLedger(store), list[str]()
    run, _ = ledger.epoch()
    step = store.rebuild

    def harmed(*request: Any) -> bool:
        steps.append(request[0])
        if len(steps) == 3 and harm == "FLUSHALL":
            store.server.command("FLUSHALL")
        if len(steps) == 3 and harm == "another":
            monkeypatch.setattr(store, "rebuild", step)
            assert ledger.rebuild(run, Book(), Past(), NOON)
        return step(*request)

    monkeypatch.setattr(store, "rebuild", harmed)
    assert not ledger.rebuild(run, big_book(1_500), Past(), NOON)
    assert ledger.epoch()[1] == (harm == "another")
