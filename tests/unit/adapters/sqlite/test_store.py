"""Whatever happens to the file: everything is denied, nothing is half done, and the ledger comes back when it can."""

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from contract.ledgers import CALLS, DAY, NOON, apply, balance, commit, limited, reserve

from fulcrum_adapters.sqlite.connect import open_wal
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.budget import Amounts, Refused, Reserved
from fulcrum_mcp.errors import Unavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, busy_timeout=0.05)
    opened.ledger.apply([reserve("first", CALLS)])
    yield opened
    opened.close()


def test_file_is_readable_by_its_owner_only(store: SqliteStore, path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(f"{path}{suffix}").st_mode) == 0o600  # noqa: PTH116
    assert balance(store.ledger, CALLS) == {"calls": (0, 1)}


def test_locked_file_denies_within_the_time_given_and_serves_again(store: SqliteStore, path: Path) -> None:
    with closing(open_wal(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            store.ledger.apply([reserve("a", CALLS)])
        other.execute("ROLLBACK")
    assert isinstance(apply(store.ledger, reserve("a", CALLS)), Reserved)
    assert balance(store.ledger, CALLS) == {"calls": (0, 2)}


def test_full_disk_denies_the_whole_batch_and_serves_again(store: SqliteStore) -> None:
    connection = store._database._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full"):
        store.ledger.apply([reserve(f"c{n}" + "x" * 500, CALLS, bucket=f"b{n}") for n in range(200)])
    assert [usage.bucket for usage in store.ledger.usage([CALLS], NOON)] == ["bot"]
    assert isinstance(apply(store.ledger, reserve("a", CALLS)), Reserved)


def test_read_only_connection_denies(store: SqliteStore) -> None:
    connection = store._database._connection
    assert connection is not None
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="readonly"):
        store.ledger.apply([reserve("a", CALLS)])
    assert isinstance(apply(store.ledger, reserve("a", CALLS)), Reserved)


def remove(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


def replace_by_empty(path: Path) -> None:
    remove(path)
    path.touch()


def replace_by_noise(path: Path) -> None:
    remove(path)
    path.write_bytes(b"no database " * 1_000)


@pytest.mark.parametrize("harm", [remove, replace_by_empty, replace_by_noise])
def test_file_that_is_lost_denies_for_good_because_what_was_spent_is_forgotten(
    store: SqliteStore, path: Path, harm: Callable[[Path], None]
) -> None:
    harm(path)
    for number in range(3):
        with pytest.raises(Unavailable, match=r"ledger\.db"):
            store.ledger.apply([reserve(f"c{number}", CALLS)])


def test_file_that_is_put_back_is_used_again(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    with closing(sqlite3.connect(saved)) as copy, closing(sqlite3.connect(path)) as source:
        source.backup(copy)
    saved.replace(path)
    with pytest.raises(Unavailable, match="deleted or replaced"):
        store.ledger.apply([reserve("a", CALLS)])
    apply(store.ledger, reserve("a", CALLS))
    assert balance(store.ledger, CALLS) == {"calls": (0, 2)}


def test_lost_journal_file_denies_once_and_loses_nothing(store: SqliteStore, path: Path) -> None:
    Path(f"{path}-wal").unlink()
    with pytest.raises(Unavailable, match="No such file"):
        store.ledger.apply([reserve("a", CALLS)])
    assert isinstance(apply(store.ledger, reserve("b", CALLS)), Reserved)
    assert balance(store.ledger, CALLS) == {"calls": (0, 2)}


def test_damaged_pages_deny(store: SqliteStore, path: Path) -> None:
    store.ledger.apply([reserve(f"c{n}" + "x" * 300, CALLS, bucket=f"b{n}") for n in range(100)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(os.urandom(size - 4_096))
    for number in range(3):
        with pytest.raises(Unavailable, match=r"malformed|corrupt"):
            store.ledger.apply([reserve(f"d{number}", CALLS)])


def test_file_of_a_newer_fulcrum_is_not_touched(path: Path) -> None:
    with closing(open_wal(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Unavailable, match="newer Fulcrum"):
        SqliteStore(path).ledger.apply([reserve("a", CALLS)])


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "ledger.db").ledger.apply([reserve("a", CALLS)])


def test_use_on_another_thread_denies(store: SqliteStore) -> None:
    caught: list[Exception] = []

    def use() -> None:
        try:
            store.ledger.apply([reserve("a", CALLS)])
        except Unavailable as exc:
            caught.append(exc)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert len(caught) == 1


def test_number_beyond_64_bits_denies_the_batch_and_writes_nothing(store: SqliteStore) -> None:
    with pytest.raises(Unavailable):
        store.ledger.apply([reserve("a", CALLS), reserve("b", CALLS, leg=2**70)])
    assert balance(store.ledger, CALLS) == {"calls": (0, 1)}


class Crash(Exception):
    """Something of the caller's own."""


def crash_in_transaction(store: SqliteStore) -> None:
    with store.transaction():
        store.ledger.apply([reserve("b", CALLS)])
        store.history.count("t", "envelope:e", "files__read", NOON)
        raise Crash


def swallow_a_fault(store: SqliteStore) -> None:
    with store.transaction():
        store.ledger.apply([reserve("a", CALLS)])
        with suppress(Unavailable):
            store.ledger.apply([reserve("b", CALLS, leg=2**70)])


def test_ledger_and_history_share_a_transaction(store: SqliteStore) -> None:
    with store.transaction():
        store.ledger.apply([reserve("a", CALLS)])
        store.history.count("t", "envelope:e", "files__read", NOON)
    with pytest.raises(Crash):
        crash_in_transaction(store)
    assert store.history.read("t", "envelope:e").calls == {"files__read": 1}
    assert balance(store.ledger, CALLS) == {"calls": (0, 2)}


def test_part_that_failed_spoils_the_transaction_even_if_nobody_looked(store: SqliteStore) -> None:
    with pytest.raises(Unavailable, match="a part of the transaction failed"):
        swallow_a_fault(store)
    assert balance(store.ledger, CALLS) == {"calls": (0, 1)}


def test_zero_cost_calls_need_the_ledger_too(store: SqliteStore, path: Path) -> None:
    remove(path)
    with pytest.raises(Unavailable):
        store.ledger.apply([reserve("a", CALLS, amounts=Amounts(0))])


def test_what_was_committed_is_there_after_reopening(store: SqliteStore, path: Path) -> None:
    one = limited(CALLS, calls=2)
    store.ledger.apply([reserve("a", one), commit("a")])
    store.close()
    again = SqliteStore(path)
    assert isinstance(apply(again.ledger, reserve("b", one)), Refused)
    assert balance(again.ledger, one, NOON + DAY) == {"calls": (0, 0)}
    again.close()


def test_another_ledger_in_its_place_is_refused_by_whoever_knew_the_old_one(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.db"
    with closing(sqlite3.connect(saved)) as copy, closing(sqlite3.connect(path)) as source:
        source.backup(copy)
    remove_all(path)
    stranger = SqliteStore(path)
    assert stranger.ledger.open("w") == []
    for number in range(3):
        with pytest.raises(Unavailable, match="replaced"):
            store.ledger.apply([reserve(f"c{number}", CALLS)])
    stranger.close()
    remove_all(path)
    saved.replace(path)
    assert isinstance(apply(store.ledger, reserve("a", CALLS)), Reserved)
    assert balance(store.ledger, CALLS) == {"calls": (0, 2)}


def test_whoever_only_looks_makes_no_ledger(path: Path) -> None:
    looking = SqliteStore(path, create=False)
    with pytest.raises(Unavailable, match=r"ledger\.db"):
        looking.ledger.open("w")
    assert not path.exists()
    path.touch()
    for _ in range(2):
        with pytest.raises(Unavailable, match="empty"):
            looking.ledger.open("w")


def test_a_busy_opening_leaves_nothing_half_open(path: Path) -> None:
    with closing(open_wal(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        never_waits = SqliteStore(path, busy_timeout=0.0)
        for _ in range(2):
            with pytest.raises(Unavailable, match="locked") as caught:
                never_waits.ledger.open("w")
            assert caught.value.busy
        other.execute("ROLLBACK")
    assert never_waits.ledger.open("w") == []
    never_waits.close()


def remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
