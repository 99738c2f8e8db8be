"""Chains: one suite over every adapter."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from archive_rig import Author, call_drafts, lead, now_us, put
from audit_trails import verdict

from fulcrum_adapters.memory.archive import MemoryArchive
from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import Archive, AuditReader, Chains, StoreBatch

pytest_plugins = ["postgres_rig"]


class Store(NamedTuple):
    archive: Archive
    chains: Chains
    rival: Chains
    """The same, of another process."""
    reader: AuditReader


@pytest.fixture(params=["memory", pytest.param("postgres", marks=[pytest.mark.service, pytest.mark.parts])])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        memory = MemoryArchive()
        yield Store(memory, memory, memory, memory)
        return
    config: PostgresConfig = request.getfixturevalue("postgres_config")
    database = Database(config)
    reader = PostgresAuditReader(database)
    yield Store(PostgresArchive(database), PostgresChains(database), PostgresChains(database), reader)
    reader.close()
    database.close()


@pytest.fixture
def keys(tmp_path: Path) -> AuditKeys:
    return AuditKeys(tmp_path / "keys")


def test_an_empty_archive_has_nothing_to_say(store: Store) -> None:
    state = store.chains.load()
    assert (state.chains, state.broken, state.positions, state.checkpoints) == ({}, {}, {}, {})
    assert list(store.chains.links({}, 10)) == []


def test_whose_key_has_signed_is_known_once_something_is_signed(store: Store, keys: AuditKeys) -> None:
    put(store.archive, Author().write([*call_drafts(), *call_drafts(tenant="other")]))
    assert store.chains.signer() is None
    lead(store.chains, keys)
    assert (store.chains.signer(), store.rival.signer()) == (keys.key_id, keys.key_id)


def test_a_first_checkpoint_that_cannot_be_read_is_no_empty_trail(store: Store) -> None:
    store.chains.add(StoreBatch(checkpoints=[("default", 1, b'{"key":"k"}')]))
    with pytest.raises(Unavailable, match="damaged"):
        store.chains.signer()


def test_links_are_ordered_and_begin_above_what_is_known(store: Store) -> None:
    records = put(store.archive, Author("b").calls(2)) + put(store.archive, Author("a").calls(2, tenant="other"))
    links = store.chains.links({"b.default": 3}, 100)
    assert [(link.chain, link.seq) for link in links] == [
        *(("a.other", seq) for seq in (1, 2, 3, 4)),
        ("b.default", 4),
    ]
    by_place = {(record.chain, record.seq): record for record in records}
    for link in links:
        record = by_place[link.chain, link.seq]
        assert (link.tenant, link.prev, link.hash) == (record.tenant, record.prev, record.hash)
    assert list(store.chains.links({"b.default": 4, "a.other": 1 << 62}, 100)) == []


def test_records_stored_out_of_order_link_in_order(store: Store) -> None:
    records, _ = Author().calls(3)
    for record in reversed(records):
        store.archive.store([record], [])
    assert [link.seq for link in store.chains.links({}, 100)] == [1, 2, 3, 4, 5, 6]


def test_no_more_links_than_asked_for_and_all_of_them_in_turn(store: Store) -> None:
    put(store.archive, Author("a").calls(4))
    put(store.archive, Author("b").calls(1))
    seen: set[tuple[str, int]] = set()
    known = {"a.default": 0, "b.default": 0}
    for _ in range(8):
        links = store.chains.links(known, 3)
        assert len(links) <= 3
        for link in links:
            seen.add((link.chain, link.seq))
            if link.seq == known[link.chain] + 1:
                known[link.chain] += 1
    assert len(seen) == 10


def test_a_chain_with_a_gap_does_not_hold_up_the_others(store: Store) -> None:
    records, _ = Author("a").calls(8)
    store.archive.store(records[1:], [])
    put(store.archive, Author("b").calls(1))
    answers = [store.chains.links({}, 4) for _ in range(2)]
    assert {link.chain for links in answers for link in links} == {"a.default", "b.default"}


def test_what_the_leader_found_is_there_for_the_next_one(store: Store, keys: AuditKeys) -> None:
    author = Author()
    put(store.archive, author.write([*call_drafts(), *call_drafts(tenant="other")]))
    assert lead(store.chains, keys) == (4, 2)
    first = store.rival.load()
    put(store.archive, author.calls(2))
    assert lead(store.rival, keys) == (4, 1)
    state = store.chains.load()
    assert {name: (c.tenant, c.size, c.signed) for name, c in state.chains.items()} == {
        "w1.default": ("default", 6, 6),
        "w1.other": ("other", 2, 2),
    }
    assert {tenant: number for tenant, (number, _) in state.checkpoints.items()} == {"default": 2, "other": 1}
    assert state.checkpoints["other"] == first.checkpoints["other"]
    assert dict(store.reader.counts(None)) | {"last": 0} == {
        "records": 8,
        "chains": 2,
        "checkpoints": 3,
        "inputs": 4,
        "faults": 0,
        "last": 0,
    }
    assert verdict(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"), keys) is None


def test_a_leader_that_was_overtaken_writes_nothing(store: Store, keys: AuditKeys) -> None:
    author = Author()
    put(store.archive, author.calls(1))
    lead(store.chains, keys)
    stale = store.chains.load()
    put(store.archive, author.calls(1))
    lead(store.rival, keys)
    now = store.rival.load()
    with pytest.raises(Unavailable):
        store.chains.add(StoreBatch(chains=stale.chains, faults=[("w1", "late", b"")]))
    with pytest.raises(Unavailable):
        store.chains.add(StoreBatch(checkpoints=[("third", 1, b'{"chains":[]}'), ("default", 2, b'{"chains":[]}')]))
    after = store.rival.load()
    assert (after.chains["w1.default"].size, after.checkpoints) == (now.chains["w1.default"].size, now.checkpoints)
    assert store.reader.counts(None)["faults"] == 0


def test_a_broken_chain_stays_broken_and_its_fault_is_kept(store: Store) -> None:
    put(store.archive, Author().calls(1))
    chain = ChainState("w1.default", "default")
    why = "seq 1 does not continue"
    store.chains.add(StoreBatch(chains={chain.chain: chain}, broken={chain.chain: why}, faults=[("w1", why, b"")]))
    store.chains.add(StoreBatch(chains={chain.chain: chain}, faults=[("w1", why, b"")]))
    assert store.rival.load().broken == {chain.chain: why}
    assert store.reader.counts(None)["faults"] == 1


def test_an_export_ends_before_what_waits_for_a_record_on_its_way(store: Store, keys: AuditKeys) -> None:
    records, _ = Author().calls(3)
    store.archive.store(records[:3], [])
    lead(store.chains, keys)
    store.archive.store(records[4:], [])
    lines = list(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"))
    assert (len(lines), verdict(lines, keys)) == (3 + 1 + 1, None)
    store.archive.store(records[3:4], [])
    lines = list(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"))
    assert (len(lines), verdict(lines, keys)) == (6 + 1 + 1, None)


@pytest.mark.parametrize("seen", ["by its age", "by the leader"])
def test_an_export_does_not_hide_that_a_record_is_lost(store: Store, keys: AuditKeys, seen: str) -> None:
    old = now_us() - 3_600_000_000
    records, _ = Author().calls(3, at=old if seen == "by its age" else None)
    store.archive.store([*records[:3], *records[4:]], [])
    if seen == "by the leader":
        chain = ChainState("w1.default", "default")
        store.chains.add(StoreBatch(chains={chain.chain: chain}, broken={chain.chain: "seq 4 is forked"}))
    fault = verdict(export_trail(store.reader, keys, None, "2026-08-01T12:00:00Z"), keys)
    assert "seq 4 is missing" in str(fault)


def test_closing_twice_is_nothing(store: Store) -> None:
    store.chains.close()
    store.chains.close()
