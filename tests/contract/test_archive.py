"""Archive: one suite over every adapter."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from archive_rig import Author, call_drafts

from fulcrum_adapters.memory.archive import MemoryArchive
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_mcp.ports import Archive, ArchivedRecord, AuditQuery, AuditReader, DeadLetter

pytest_plugins = ["postgres_rig"]


class Store(NamedTuple):
    archive: Archive
    reader: AuditReader

    def lines(self) -> list[bytes]:
        return [found.line for found in reversed(self.reader.query(AuditQuery(limit=1000)))]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        memory = MemoryArchive()
        yield Store(memory, memory)
        return
    config: PostgresConfig = request.getfixturevalue("postgres_config")
    database = Database(config)
    reader = PostgresAuditReader(database)
    yield Store(PostgresArchive(database), reader)
    reader.close()
    database.close()


def test_records_come_back_verbatim_in_the_order_they_were_given(store: Store) -> None:
    author = Author()
    records, inputs = author.write([*call_drafts(), *call_drafts(tenant="other"), *call_drafts(effect="deny")])
    assert store.archive.store(records, inputs) == []
    assert store.lines() == [record.line for record in records]
    assert store.reader.counts(None)["inputs"] == 3


def test_what_comes_again_in_any_order_is_stored_once(store: Store) -> None:
    records, inputs = Author().calls(4)
    assert store.archive.store(records[2:5], inputs) == []
    assert store.archive.store(list(reversed(records)), inputs) == []
    assert store.archive.store([*records, *records], [*inputs, *inputs]) == []
    assert sorted(store.lines()) == sorted(record.line for record in records)
    assert store.reader.counts(None)["faults"] == 0


def test_nothing_is_stored_without_records(store: Store) -> None:
    assert store.archive.store([], []) == []
    assert store.lines() == []


def other(record: ArchivedRecord, **changed: object) -> ArchivedRecord:
    """Another record, as far as it can be told; its line is what it would be."""
    return record._replace(hash="ab" * 32, line=record.line + b" ", **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("same", ["place", "id"])
def test_another_record_in_a_taken_place_or_of_a_taken_id_is_kept_whole_and_returned(
    store: Store, same: str, *, together: bool
) -> None:
    records, _ = Author().calls(2)
    rival = other(records[1], **({"id": "rival"} if same == "place" else {"seq": 99}))
    if not together:
        assert store.archive.store(records, []) == []
    letters = store.archive.store([*records, rival], [("rival", "default", 1, b"{}"), (rival.id, "default", 1, b"{}")])
    assert [(letter.source, letter.body) for letter in letters] == [("w1", rival.line)]
    assert f"seq {rival.seq}" in letters[0].what
    assert [found.body for found in store.archive.store([rival], [])] == [rival.line]
    assert store.lines() == [record.line for record in records]
    assert store.reader.counts(None)["faults"] == 1


def test_dead_letters_are_kept_once_for_a_body_and_source(store: Store) -> None:
    letters = [DeadLetter("w1", "no record", b"\x00\xff noise"), DeadLetter("w2", "no record", b"\x00\xff noise")]
    store.archive.bury([])
    store.archive.bury(letters)
    store.archive.bury([*letters, letters[0]._replace(what="still no record \0 \ud800")])
    assert store.reader.counts(None)["faults"] == 2


def test_inputs_are_erased_by_their_time_and_never_come_back(store: Store) -> None:
    records, inputs = Author().calls(2)
    inputs = [(name, tenant, 1000 + number, text) for number, (name, tenant, _, text) in enumerate(inputs)]
    assert store.archive.store(records, inputs) == []
    assert store.archive.erase_inputs(1001) == 1
    assert store.archive.erase_inputs(1001) == 0
    assert store.archive.store(records, inputs) == []
    decision = records[0].decision or ""
    found = store.reader.decision("default", decision)
    assert found is not None
    assert (found.inputs, found.decided, list(found.finished)) == (None, records[0].line, [records[1].line])
    assert store.reader.counts(None)["inputs"] == 1


def test_inputs_that_come_after_their_record_are_kept(store: Store) -> None:
    records, inputs = Author().calls(1)
    assert store.archive.store(records, []) == []
    assert store.archive.store([], inputs) == []
    assert store.reader.counts(None)["inputs"] == 1


def test_closing_twice_is_nothing(store: Store) -> None:
    store.archive.close()
    store.archive.close()
