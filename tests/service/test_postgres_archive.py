"""The archive on Postgres under several processes, kills and silence; what its reader may not miss and may not see."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from archive_rig import Author, batches, lead, now_us, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_rig import superuser
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres import archive as module
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.audit_rows import columns_of
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.upgrade import upgrade
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import AuditQuery, DeadLetter, Spend

pytest_plugins = ["postgres_rig"]
pytestmark = [pytest.mark.service, pytest.mark.parts]

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("archive_worker.py")


@pytest.fixture
def archive(postgres_database: Database) -> PostgresArchive:
    return PostgresArchive(postgres_database)


@pytest.fixture
def reader(postgres_database: Database) -> Iterator[PostgresAuditReader]:
    reader = PostgresAuditReader(postgres_database)
    yield reader
    reader.close()


def everything(config: PostgresConfig, statement: str) -> list[tuple[Any, ...]]:
    """As superuser."""
    connection = superuser(config)
    try:
        return connection.execute(statement.encode()).fetchall()
    finally:
        connection.close()


Worker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def worker(postgres_config: PostgresConfig) -> Iterator[Worker]:
    started: list[subprocess.Popen[str]] = []

    def start(how: str, number: int = 0, size: int = 0, at: int = 0) -> "subprocess.Popen[str]":
        path = os.pathsep.join(str(ROOT / part) for part in ("", "adapters", "tests"))
        process = subprocess.Popen(
            [sys.executable, str(WORKER), postgres_config.url, str(number), str(size), str(at), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


COUNTS = """
SELECT (SELECT count(*) FROM fulcrum.audit_events), (SELECT count(DISTINCT (chain, seq)) FROM fulcrum.audit_events),
       (SELECT count(*) FROM fulcrum.call_inputs), (SELECT count(*) FROM metrics.tool_calls),
       (SELECT count(*) FROM metrics.cost_events), (SELECT coalesce(sum(usd_micros), 0) FROM metrics.cost_events),
       (SELECT coalesce(sum(usd_micros), 0) FROM fulcrum.budget_spent), (SELECT count(*) FROM fulcrum.audit_faults)
"""


def test_two_processes_that_store_the_same_batches_at_once_store_each_record_once(
    worker: Worker, postgres_config: PostgresConfig
) -> None:
    number, size, at = 40, 50, now_us()
    workers = [worker(how, number, size, at) for how in ("forwards", "backwards", "forwards", "backwards")]
    for process in workers:
        assert said(process) == "ready"
    for process in workers:
        go(process)
    for process in workers:
        heard, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert sorted(heard.split("\n")) == sorted(["", *(f"{place} 0" for place in range(number))])
    total = number * size
    calls = total // 2
    assert everything(postgres_config, COUNTS) == [(total, total, calls, total, calls, 2 * calls, 2 * calls, 0)]


def test_a_killed_process_leaves_each_batch_whole_or_not_at_all(
    worker: Worker, postgres_config: PostgresConfig, archive: PostgresArchive
) -> None:
    number, size, at = 400, 60, now_us()
    work = batches(number, size, at)
    started = [worker("forwards", number, size, at) for _ in range(3)]
    for process in started:
        assert said(process) == "ready"
    told = 0
    for process in started:
        go(process)
        for _ in range(5 + random.randrange(20)):
            told = max(told, int(said(process).split()[0]) + 1)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    deadline = time.monotonic() + 20
    while everything(
        postgres_config,
        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND application_name = 'fulcrum'"
        " AND datname = current_database()",
    ) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    there = {row[0] for row in everything(postgres_config, "SELECT id FROM fulcrum.audit_events")}
    whole = [sum(record.id in there for record in records) for records, _ in work]
    assert set(whole) == {0, size}
    assert all(count == size for count in whole[:told])
    stored = sum(whole)
    calls = stored // 2
    counts = everything(postgres_config, COUNTS)[0]
    assert counts == (stored, stored, calls, stored, calls, 2 * calls, 2 * calls, 0)
    for records, inputs in work[:60]:
        assert archive.store(records, inputs) == []


def test_a_tail_misses_no_record_that_is_committed_late(
    postgres_database: Database, archive: PostgresArchive, reader: PostgresAuditReader
) -> None:
    early, late = Author("early").calls(1)[0], Author("late").calls(1)[0]
    with postgres_database.session("fulcrum_ingest") as slow:
        slow.execute(module._ENTER)
        assert len(slow.execute(module._STORE, columns_of(early)).fetchall()) == 2
        assert archive.store(late, []) == []
        with postgres_database.session("fulcrum_ingest") as plain:  # what a reader would see that did not mind
            assert plain.execute("SELECT min(row) FROM fulcrum.audit_events").fetchall() == [(3,)]
        assert list(reader.query(AuditQuery(after=0))) == []
        assert list(reader.query(AuditQuery())) == []
        assert reader.counts(None)["last"] == 0
    assert [found.line for found in reader.query(AuditQuery(after=0))] == [r.line for r in (*early, *late)]
    assert reader.counts(None)["last"] == 4


def test_a_tail_shows_every_record_once_while_others_store(
    archive: PostgresArchive, reader: PostgresAuditReader
) -> None:
    work = [Author(f"w{number}") for number in range(3)]
    wanted: list[bytes] = []

    def store(author: Author) -> None:
        for _ in range(25):
            records = put(archive, author.calls(random.randint(1, 3), inputs=None))
            wanted.extend(record.line for record in records)

    threads = [threading.Thread(target=store, args=(author,)) for author in work]
    for thread in threads:
        thread.start()
    seen: list[bytes] = []
    after, deadline = 0, time.monotonic() + 60
    while any(thread.is_alive() for thread in threads) or len(seen) < len(wanted):
        assert time.monotonic() < deadline
        for found in reader.query(AuditQuery(after=after, limit=50)):
            assert found.row > after
            after = found.row
            seen.append(found.line)
    assert sorted(seen) == sorted(wanted)


def test_what_was_recorded_can_neither_be_changed_nor_removed(
    postgres_config: PostgresConfig, postgres_database: Database, archive: PostgresArchive, tmp_path: Path
) -> None:
    put(archive, Author().calls(1))
    lead(PostgresChains(postgres_database), AuditKeys(tmp_path))
    archive.bury([DeadLetter("w1", "what", b"body")])
    owner = psycopg.connect(postgres_config.url, autocommit=True)
    root = superuser(postgres_config)
    try:
        for table in ("audit_events", "audit_checkpoints", "audit_faults"):
            for connection in (owner, root):
                for statement in (f"DELETE FROM fulcrum.{table}", f"TRUNCATE fulcrum.{table}"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                        connection.execute(statement.encode())
        for connection in (owner, root):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                connection.execute("UPDATE fulcrum.audit_events SET line = ''")
    finally:
        owner.close()
        root.close()
    for statement in ("UPDATE fulcrum.audit_events SET seq = 9", "DELETE FROM fulcrum.audit_events"):
        for role in ("fulcrum_ingest", "fulcrum_app", "fulcrum_gateway"):
            with pytest.raises(Unavailable), postgres_database.session(role, "default") as session:
                session.execute(statement.encode())


def test_the_application_sees_its_tenants_rows_only(
    postgres_database: Database, archive: PostgresArchive, tmp_path: Path
) -> None:
    author = Author()
    for tenant in ("default", "other"):
        put(archive, author.calls(2, tenant=tenant))
    lead(PostgresChains(postgres_database), AuditKeys(tmp_path))
    archive.bury([DeadLetter("w1", "what", b"body")])
    tables = ("audit_events", "call_inputs", "audit_chains", "audit_checkpoints")
    for tenant, wanted in (("default", [4, 2, 1, 1]), ("other", [4, 2, 1, 1]), ("third", [0] * 4), ("", [0] * 4)):
        with postgres_database.session("fulcrum_app", tenant) as session:
            found = [session.execute(f"SELECT tenant FROM fulcrum.{table}".encode()).fetchall() for table in tables]
        assert [len(rows) for rows in found] == wanted
        assert {name for rows in found for (name,) in rows} <= {tenant}
    for role in ("fulcrum_app", "fulcrum_gateway"):
        with pytest.raises(Unavailable), postgres_database.session(role, "default") as session:
            session.execute("SELECT * FROM fulcrum.audit_faults")
    with pytest.raises(Unavailable), postgres_database.session("fulcrum_app", "default") as session:
        session.execute("INSERT INTO fulcrum.call_inputs VALUES ('x', 'default', 1, '')")


NUMBERS = count()
ODD = st.text(max_size=20) | st.sampled_from(["\0", "\ud800", "é" * 3000, "x" * 9000, "a\0b"])
ANY_TEXT = st.none() | ODD
AMOUNTS = st.none() | st.builds(Amounts, *[st.integers(0, 2**63 - 1)] * 6)
ANY_INT = st.none() | st.integers() | st.sampled_from([2**63, -(2**63), 2**200])
STRANGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("subject", "decision", "agent", "key", "server", "tool", "effect", "outcome", "policy", "code"), ANY_TEXT
        ),
        **dict.fromkeys(("leg", "duration_us", "size"), ANY_INT),
        "time": st.integers() | st.sampled_from([2**63, -(2**63), 0]),
        "type": st.text(max_size=5) | st.just("x.tool_call.finished"),
        "id": st.text(max_size=3) | st.just("x" * 9000),
        "tenant": st.text(max_size=3) | st.just("\0"),
        "seq": st.integers().filter(lambda seq: seq not in range(1, 5)),
        "prev": st.text(max_size=5) | st.just("zz" * 32) | st.just("ab " * 21 + "a"),
        "cost": st.dictionaries(st.sampled_from([*Amounts._fields, "\0"]), st.integers()),
    },
)


SPENT = st.builds(
    Spend,
    ANY_TEXT,
    st.lists(st.builds(Place, ODD, ODD, ODD, st.integers(0, 2**63 - 1)), max_size=2).map(tuple),
    AMOUNTS,
    AMOUNTS,
    st.lists(ODD, max_size=2).map(tuple),
)


@given(strange=STRANGE, spend=st.none() | SPENT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_record_says_it_is_kept_and_keeps_no_other_from_being_stored(
    archive: PostgresArchive, strange: dict[str, Any], spend: Spend | None
) -> None:
    records, _ = Author(f"w{next(NUMBERS)}").calls(2, inputs=None)
    spoiled = records[1]._replace(**{**strange, "subject": strange.get("subject") or "", "spend": spend})
    letters = archive.store([records[0], spoiled, *records[2:]], [(spoiled.id, spoiled.tenant, 2**70, b"{}")])
    assert [letter.body for letter in letters] in ([], [spoiled.line])
    again = archive.store([spoiled], [])
    assert [letter.body for letter in again] == [letter.body for letter in letters]
    assert not archive.store([records[0], *records[2:]], [])


def test_a_lost_answer_to_a_commit_is_doubtful_and_storing_again_counts_once(
    postgres_config: PostgresConfig, archive: PostgresArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, inputs = Author().calls(3, charged={"usd_micros": 4})
    commit = psycopg.Connection.commit

    def lost(connection: psycopg.Connection[Any]) -> None:
        commit(connection)
        connection.close()
        raise psycopg.OperationalError("the answer was lost")

    monkeypatch.setattr(psycopg.Connection, "commit", lost)
    with pytest.raises(Unavailable) as caught:
        archive.store(records, inputs)
    monkeypatch.undo()
    assert caught.value.doubtful
    assert archive.store(records, inputs) == []
    assert everything(postgres_config, COUNTS)[0][:6] == (6, 6, 3, 6, 3, 12)


@pytest.fixture
def own_config(own_postgres: PostgresServer) -> PostgresConfig:
    config = PostgresConfig(own_postgres.url, timeout=1.0)
    upgrade(config)
    return config


def test_a_silent_server_is_unavailable_in_time_and_nothing_is_lost_or_doubled(
    own_postgres: PostgresServer, own_config: PostgresConfig
) -> None:
    database = Database(own_config)
    archive, chains, reader = PostgresArchive(database), PostgresChains(database), PostgresAuditReader(database)
    records, inputs = Author().calls(2)
    assert archive.store(records[:2], inputs[:1]) == []
    own_postgres.pause()
    attempts: list[Callable[[], object]] = [
        lambda: archive.store(records, inputs),
        lambda: archive.bury([DeadLetter("w1", "what", b"body")]),
        lambda: archive.erase_inputs(1),
        chains.load,
        lambda: chains.links({}, 10),
        lambda: reader.query(AuditQuery()),
        lambda: reader.counts(None),
        lambda: list(reader.lines(None)),
    ]
    for attempt in attempts:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            attempt()
        assert time.monotonic() - began < 6
    own_postgres.resume()
    deadline = time.monotonic() + 20
    while True:
        try:
            assert archive.store(records, inputs) == []
            break
        except Unavailable:
            assert time.monotonic() < deadline
    found = [found.line for found in reader.query(AuditQuery(after=0))]
    assert sorted(found) == sorted(record.line for record in records)
    reader.close()
    database.close()


def test_storing_is_not_held_up_by_one_long_export(
    postgres_config: PostgresConfig, archive: PostgresArchive, reader: PostgresAuditReader
) -> None:
    put(archive, Author("w1").calls(400, inputs=None))
    lines = reader.lines(None)
    next(lines)
    put(archive, Author("w2").calls(1))
    assert len(list(lines)) == 799
    assert everything(postgres_config, COUNTS)[0][0] == 802
