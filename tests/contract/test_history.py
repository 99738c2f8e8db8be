"""What every history promises, over every history there is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract.redis_books import REAL, open_books

from fulcrum_adapters.memory.history import MemoryHistory
from fulcrum_adapters.redis import RedisHistory
from fulcrum_adapters.sqlite.connect import WalDatabase
from fulcrum_adapters.sqlite.history import SqliteHistory
from fulcrum_adapters.sqlite.schema import SCHEMA, VERSION
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import History, HistoryView

SECOND = 1_000_000_000
START = 1_795_521_600 * SECOND
ENVELOPE = "envelope:e1"
KEY = "key:k1"


class Time:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture(params=["memory", "sqlite", *REAL])
def history(request: pytest.FixtureRequest, tmp_path: Path, clock: Time) -> Iterator[History]:
    if request.param == "memory":
        yield MemoryHistory(key_window=3_600, clock=clock)
        return
    if request.param in {"valkey_url", "redis_url"}:
        books = open_books(request.getfixturevalue(request.param))
        yield RedisHistory(books, key_window=3_600, clock=clock)
        books.close()
        return
    database = WalDatabase(tmp_path / "ledger.db", SCHEMA, VERSION)
    yield SqliteHistory(database, key_window=3_600, clock=clock)
    database.close()


def test_unknown_subject_has_no_past(history: History) -> None:
    assert history.read("t", ENVELOPE) == HistoryView((), {}, ())


def test_taints_are_kept_once_each_and_sorted(history: History) -> None:
    history.taint("t", ENVELOPE, ["secret", "pii"], START)
    history.taint("t", ENVELOPE, ["pii", "pii"], START + SECOND)
    history.taint("t", ENVELOPE, [], START)
    assert history.read("t", ENVELOPE).taints == ("pii", "secret")


def test_calls_are_counted_by_tool(history: History) -> None:
    for tool in ("files__read", "files__read", "git__log"):
        history.count("t", ENVELOPE, tool, START)
    assert history.read("t", ENVELOPE).calls == {"files__read": 2, "git__log": 1}


@pytest.mark.parametrize(("tenant", "subject"), [("u", ENVELOPE), ("t", "envelope:e2"), ("t", "key:e1")])
def test_subjects_and_tenants_do_not_share(history: History, tenant: str, subject: str) -> None:
    history.taint("t", ENVELOPE, ["pii"], START)
    history.count("t", ENVELOPE, "files__read", START)
    assert history.read(tenant, subject) == HistoryView()


def test_keys_past_counts_within_its_window_only(history: History, clock: Time) -> None:
    history.taint("t", KEY, ["pii"], START)
    history.count("t", KEY, "files__read", START)
    clock.now = START + 3_599 * SECOND
    assert history.read("t", KEY) == HistoryView(("pii",), {"files__read": 1})
    clock.now = START + 3_661 * SECOND
    assert history.read("t", KEY) == HistoryView()


def test_taint_that_is_added_again_lasts_from_then(history: History, clock: Time) -> None:
    history.taint("t", KEY, ["pii"], START)
    history.taint("t", KEY, ["pii"], START + 3_000 * SECOND)
    clock.now = START + 4_000 * SECOND
    assert history.read("t", KEY).taints == ("pii",)


def test_clock_that_goes_back_keeps_a_taint(history: History, clock: Time) -> None:
    history.taint("t", KEY, ["pii"], START)
    history.taint("t", KEY, ["pii"], START - 10_000 * SECOND)
    clock.now = START - 20_000 * SECOND
    assert history.read("t", KEY).taints == ("pii",)


def test_envelopes_past_counts_for_good(history: History, clock: Time) -> None:
    history.taint("t", ENVELOPE, ["pii"], START)
    history.count("t", ENVELOPE, "files__read", START)
    clock.now = START + 30 * 86_400 * SECOND
    assert history.read("t", ENVELOPE) == HistoryView(("pii",), {"files__read": 1})


def test_keys_many_old_counts_are_forgotten_and_an_envelopes_kept(tmp_path: Path, clock: Time) -> None:
    database = WalDatabase(tmp_path / "ledger.db", SCHEMA, VERSION)
    history = SqliteHistory(database, key_window=60, clock=clock)
    history.count("t", ENVELOPE, "files__read", clock.now)
    history.taint("t", ENVELOPE, ["pii"], clock.now)
    for _ in range(1_024):
        clock.now += SECOND
        history.count("t", KEY, "files__read", clock.now)
    with database.read() as connection:
        (kept,) = connection.execute("SELECT count(*) FROM tally WHERE lasting = 0").fetchone()
    assert 60 <= kept <= 400
    assert history.read("t", KEY).calls["files__read"] in range(58, 62)
    assert history.read("t", ENVELOPE) == HistoryView(("pii",), {"files__read": 1})
    database.close()


@pytest.mark.parametrize("use", [lambda h: h.read("t", KEY), lambda h: h.taint("t", KEY, ["pii"], START)])
def test_lost_file_is_unavailable_never_an_empty_past(
    tmp_path: Path, clock: Time, use: Callable[[History], object]
) -> None:
    database = WalDatabase(tmp_path / "ledger.db", SCHEMA, VERSION)
    history = SqliteHistory(database, clock=clock)
    history.taint("t", KEY, ["pii"], START)
    for file in tmp_path.iterdir():
        file.unlink()
    for _ in range(2):
        with pytest.raises(Unavailable):
            use(history)
