"""AuditReader: one suite over every adapter, whoever stores the records."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from archive_rig import Author, lead, put
from audit_trails import calls, decided, finished, intake_all, new_id, verdict

from fulcrum_adapters.memory.archive import MemoryArchive
from fulcrum_adapters.memory.audit import MemoryAuditLog, MemoryAuditStore
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.sqlite.audit_reader import SqliteAuditReader
from fulcrum_adapters.sqlite.audit_store import SqliteAuditStore
from fulcrum_mcp.control.audit import export_trail, get_decision, query_records
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.errors import Invalid, NotFound
from fulcrum_mcp.ports import Archive, AuditQuery, AuditReader, AuditStore, Chains
from fulcrum_mcp.processor import Intake

pytest_plugins = ["postgres_rig"]

NOON = "2026-08-01T12:00:00Z"
Write = Callable[[Sequence[RecordDraft]], None]


class Trail:
    """A reader, and how records and checkpoints come to be there."""

    def __init__(self, reader: AuditReader, write: Write, sign: Callable[[], object], keys: AuditKeys) -> None:
        self.reader = reader
        self.write = write
        self.sign = sign
        self.keys = keys

    def found(self, **query: Any) -> list[str]:
        return [json.loads(record.line)["id"] for record in query_records(self.reader, AuditQuery(**query))]

    def export(self, tenant: str | None = None) -> list[bytes]:
        return list(export_trail(self.reader, self.keys, tenant, NOON))


def _embedded(store: AuditStore, reader: AuditReader, keys: AuditKeys) -> Trail:
    log = MemoryAuditLog("w1")
    intake = Intake(log, store, keys, breath=0.0)

    def write(drafts: Sequence[RecordDraft]) -> None:
        log.append(drafts)
        assert intake_all(intake) == []

    return Trail(reader, write, intake.sign, keys)


def _archived(archive: Archive, chains: Chains, reader: AuditReader, keys: AuditKeys) -> Trail:
    author = Author("w1")

    def write(drafts: Sequence[RecordDraft]) -> None:
        put(archive, author.write(drafts))
        lead(chains)

    return Trail(reader, write, lambda: lead(chains, keys), keys)


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    return AuditKeys(tmp_path / "keys")


POSTGRES = pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])


@pytest.fixture(params=["memory", "sqlite", "memory archive", POSTGRES])
def trail(request: pytest.FixtureRequest, tmp_path: Path, keys: AuditKeys) -> Iterator[Trail]:
    match request.param:
        case "memory":
            memory = MemoryAuditStore()
            yield _embedded(memory, memory, keys)
        case "sqlite":
            store = SqliteAuditStore(tmp_path / "audit.db")
            reader = SqliteAuditReader(tmp_path / "audit.db")
            yield _embedded(store, reader, keys)
            reader.close()
            store.close()
        case "memory archive":
            archive = MemoryArchive()
            yield _archived(archive, archive, archive, keys)
        case _:
            config: PostgresConfig = request.getfixturevalue("postgres_config")
            database = Database(config)
            questions = PostgresAuditReader(database)
            yield _archived(PostgresArchive(database), PostgresChains(database), questions, keys)
            questions.close()
            database.close()


def test_queries_find_what_they_ask_for(trail: Trail) -> None:
    ids = [new_id("call_") for _ in range(4)]
    drafts = [
        decided(ids[0], tool="read_file"),
        decided(ids[1], tool="write_file", effect="deny"),
        decided(ids[2], tool="read_file", agent="bob"),
        decided(ids[3], tool="read_file", tenant="other"),
        finished(ids[0], outcome="error"),
    ]
    trail.write(drafts)
    found = trail.found
    everything = [draft.id for draft in reversed(drafts)]
    assert found() == everything
    assert found(limit=2) == everything[:2]
    assert found(tool="files__read*", tenant="default") == [drafts[2].id, drafts[0].id]
    assert found(tool="files__*_file", effect="deny") == [drafts[1].id]
    assert found(tool="files__read_file", tenant="other") == [drafts[3].id]
    assert found(agent="bob") == [drafts[2].id]
    assert found(effect="error") == [drafts[4].id]
    assert found(call=ids[0]) == [drafts[4].id, drafts[0].id]
    assert found(decision=ids[1].replace("call_", "dec_")) == [drafts[1].id]
    assert found(type=drafts[4].type) == [drafts[4].id]
    assert found(since=drafts[2].time, until=drafts[4].time) == [drafts[3].id, drafts[2].id]
    assert found(tenant="nobody") == []
    rows = [record.row for record in trail.reader.query(AuditQuery())]
    assert found(after=rows[2]) == [drafts[3].id, drafts[4].id]
    assert found(after=rows[2], tenant="default") == [drafts[4].id]
    assert found(before=rows[2]) == [drafts[1].id, drafts[0].id]


def test_only_stars_and_question_marks_mean_anything_in_a_tools_pattern(trail: Trail) -> None:
    long = "x" * 200
    names = ["a%b", "a_b", "a\\b", "[ab]", "axb", "çé", long + "1", long + "2", "x" * 121]
    drafts = [decided(new_id("call_"), tool=name) for name in names]
    trail.write(drafts)

    def found(pattern: str) -> list[str]:
        ids = trail.found(tool=f"files__{pattern}", tenant="default")
        return [name for draft, name in zip(drafts, names, strict=True) if draft.id in ids]

    for name in names:
        assert found(name) == [name]
        assert found(name[:-1] + "?") == [
            other for other in names if len(other) == len(name) and other[:-1] == name[:-1]
        ]
    assert found("a?b") == ["a%b", "a_b", "a\\b", "axb"]
    assert found("a_*") == ["a_b"]
    assert found("[ab]*") == ["[ab]"]
    assert found("ç*") == ["çé"]
    assert found(long + "*") == names[6:8]
    assert found("A*") == []
    assert trail.found(tool="*s__a[b") == []
    assert trail.found(tool="\U0010ffff*", tenant="default") == []


@pytest.mark.parametrize("hostile", ["\0", "\ud800", "'; DROP TABLE x; --", "%s %(x)s", "a" * 5000])
def test_no_question_is_too_strange(trail: Trail, hostile: str) -> None:
    trail.write(calls(1))
    for name in ("tenant", "tool", "effect", "agent", "type", "call", "decision"):
        assert trail.found(**{name: hostile}) == []
        assert trail.found(**{name: hostile + "*", "tenant": "default"}) == [] or name == "tenant"
    assert trail.reader.decision(hostile, hostile) is None
    assert len(trail.found(since=-(2**62), until=2**62, before=2**62, after=0)) == 2


def test_paging_and_tailing_show_every_record_once(trail: Trail) -> None:
    drafts = [*calls(3), *calls(2, tenant="other"), *calls(2)]
    trail.write(drafts)
    mine = [draft.id for draft in drafts if draft.tenant == "default"]
    paged: list[str] = []
    before: int | None = None
    while page := trail.reader.query(AuditQuery(tenant="default", limit=3, before=before)):
        paged += [json.loads(record.line)["id"] for record in page]
        before = page[-1].row
    assert paged == mine[::-1]
    tailed: list[str] = []
    after = 0
    while page := trail.reader.query(AuditQuery(tenant="default", limit=3, after=after)):
        tailed += [json.loads(record.line)["id"] for record in page]
        after = page[-1].row
    assert tailed == mine
    assert trail.reader.counts(None)["last"] == after


def test_a_query_without_bounds_is_refused(trail: Trail) -> None:
    with pytest.raises(Invalid, match="limit 0"):
        query_records(trail.reader, AuditQuery(limit=0))


def test_a_decision_has_its_inputs_and_the_outcome_of_its_leg(trail: Trail) -> None:
    call = new_id("call_")
    trail.write([decided(call), decided(call, leg=1), finished(call, leg=1), finished(call)])
    decision = call.replace("call_", "dec_")
    found = get_decision(trail.reader, "default", decision)
    assert found["decision"]["data"]["call_id"] == call
    assert found["inputs"] == {"arguments": {}}
    assert [event["data"]["leg"] for event in found["finished"]] == [found["decision"]["data"]["leg"]]
    assert get_decision(trail.reader, None, decision)["decision"] == found["decision"]
    with pytest.raises(NotFound, match=decision):
        get_decision(trail.reader, "other", decision)


def test_an_export_is_whole_and_verifies(trail: Trail) -> None:
    for number in (2, 3, 1):
        trail.write([*calls(number), *calls(1, tenant="other")])
        if number != 1:
            trail.sign()
    lines = trail.export()
    assert verdict(lines, trail.keys) is None
    assert len(lines) == 18 + 4 + 1
    assert dict(trail.reader.counts(None)) | {"last": 0} == {
        "records": 18,
        "chains": 2,
        "checkpoints": 4,
        "inputs": 9,
        "faults": 0,
        "last": 0,
    }


def test_an_export_of_one_tenant_holds_no_other(trail: Trail) -> None:
    trail.write([*calls(3), *calls(1, tenant="other")])
    trail.sign()
    lines = trail.export("other")
    assert verdict(lines, trail.keys) is None
    assert b"default" not in b"".join(lines)
    assert len(lines) == 2 + 1 + 1
    counts = trail.reader.counts("other")
    assert (counts["records"], counts["chains"], counts["checkpoints"]) == (2, 1, 1)
    assert len(trail.export("nobody")) == 1


def test_an_export_longer_than_a_page_is_whole(trail: Trail) -> None:
    trail.write(calls(300))
    trail.sign()
    lines = trail.export()
    assert len(lines) == 602
    assert verdict(lines, trail.keys) is None


def test_what_is_stored_while_an_export_is_read_is_not_in_it(trail: Trail) -> None:
    trail.write(calls(2))
    trail.sign()
    lines = trail.reader.lines(None)
    first = next(lines)
    trail.write([*calls(2), *calls(1, tenant="another")])
    trail.sign()
    seen = len([first, *lines])
    assert seen == 5 or isinstance(trail.reader, MemoryAuditStore)  # which has no transactions
    assert len(list(trail.reader.lines(None))) == 10 + 3
