import json
from pathlib import Path

import pytest
from audit_trails import calls, decided, finished, new_id
from spool_folders import SMALL, die, last_segment, read, reader, seqs

from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_adapters.spool import spool as module
from fulcrum_adapters.spool.folder import Folder, boot_id, folders
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports import SpoolPosition


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_stream_durability_is_refused_with_the_remedy() -> None:
    with pytest.raises(Invalid, match='use "sync" or "os"'):
        SpoolConfig("stream")
    with pytest.raises(Invalid, match="fast"):
        SpoolConfig("fast")


def test_files_are_private(root: Path) -> None:
    with Spool.open(root) as spool:
        spool.append(calls(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}
    assert modes == {
        "spool": 0o700,
        spool.writer: 0o700,
        "lock": 0o600,
        "state": 0o600,
        "00000001.seg": 0o600,
    }


@pytest.mark.parametrize("kill", [True, False])
def test_a_dead_writers_chains_are_continued(root: Path, kill: bool) -> None:
    first = Spool.open(root)
    first.append(calls(2))
    (die if kill else Spool.close)(first)
    with Spool.open(root) as second:
        assert second.writer == first.writer
        second.append(calls(1))
    assert seqs(read(root)[0]) == [1, 2, 3, 4, 5, 6]


def test_two_living_writers_have_folders_of_their_own(root: Path) -> None:
    with Spool.open(root) as one, Spool.open(root) as two:
        assert one.writer != two.writer
        one.append(calls(1))
        two.append(calls(1))
    assert seqs(read(root)[0]) == [1, 2, 1, 2]


def test_writers_that_come_and_go_share_one_folder(root: Path) -> None:
    for _ in range(20):
        with Spool.open(root, SMALL) as spool:
            spool.append(calls(1))
    assert len(list(folders(root))) == 1
    assert seqs(read(root)[0]) == list(range(1, 41))


@pytest.mark.parametrize("chunk", [600, 5000, 256 << 10])
def test_records_are_read_across_segments(root: Path, chunk: int) -> None:
    with Spool.open(root, SMALL) as spool:
        for _ in range(40):
            spool.append(calls(1))
        assert len(Folder(root / spool.writer).segments()) > 5
        assert seqs(read(root, chunk=chunk)[0]) == list(range(1, 81))


def test_open_calls_are_those_forwarded_and_not_finished(root: Path) -> None:
    done, lost, denied = new_id("call_"), new_id("call_"), new_id("call_")
    spool = Spool.open(root)
    spool.append([decided(done), decided(lost), decided(denied, effect="deny"), decided(done, leg=1)])
    spool.append([finished(done)])
    die(spool)
    with Spool.open(root) as second:
        assert [(call.call, call.leg, call.tenant) for call in second.open_calls] == [
            (lost, 0, "default"),
            (done, 1, "default"),
        ]
        assert json.loads(second.open_calls[0].data)["call_id"] == lost
        second.append([finished(lost, outcome="outcome_unknown")])
        assert [(call.call, call.leg) for call in second.open_calls] == [(done, 1)]


def test_open_calls_survive_rotation_removal_and_many_deaths(root: Path) -> None:
    lost = new_id("call_")
    spool = Spool.open(root, SMALL)
    spool.append([decided(lost)])
    for _ in range(30):
        spool.append(calls(1))
    source = reader(root)
    source.release(spool.writer, SpoolPosition(10**6, 0))
    assert len(Folder(root / spool.writer).segments()) == 1
    die(spool)
    for _ in range(3):
        again = Spool.open(root, SMALL)
        assert [call.call for call in again.open_calls] == [lost]
        die(again)


def test_orphans_are_finished_once_and_given_back(root: Path) -> None:
    lost = [new_id("call_") for _ in range(3)]
    spools = [Spool.open(root) for _ in range(3)]
    for spool, call in zip(spools, lost, strict=True):
        spool.append([decided(call)])
    for spool in spools[:2]:
        die(spool)
    seen: list[str] = []
    for orphan in Spool.orphans(root):
        seen += [call.call for call in orphan.open_calls]
        orphan.append([finished(call.call, outcome="outcome_unknown") for call in orphan.open_calls])
    assert sorted(seen) == sorted(lost[:2])
    assert list(Spool.orphans(root)) == []
    die(spools[2])
    assert [orphan.open_calls[0].call for orphan in Spool.orphans(root)] == [lost[2]]
    assert [orphan.open_calls[0].call for orphan in Spool.orphans(root)] == [lost[2]]  # still open: seen again


def test_without_fdatasync_chains_end_at_a_restart_of_the_machine(root: Path) -> None:
    with Spool.open(root, SMALL) as spool:
        spool.append(calls(1))
    with Spool.open(root, SMALL) as same:
        assert same.writer == spool.writer
    lock = root / spool.writer / "lock"
    lock.write_text(lock.read_text().replace(boot_id() or "", "another"))
    with Spool.open(root, SMALL) as other:
        assert other.writer != spool.writer


def test_a_living_writers_unacknowledged_bytes_are_not_read(root: Path) -> None:
    with Spool.open(root) as spool:
        spool.append(calls(1))
        state = root / spool.writer / "state"
        acknowledged = state.read_bytes()
        spool.append(calls(1))
        state.write_bytes(acknowledged)
        assert seqs(read(root)[0]) == [1, 2]


def test_a_dead_writers_unacknowledged_bytes_are_read(root: Path) -> None:
    spool = Spool.open(root)
    spool.append(calls(1))
    state = root / spool.writer / "state"
    acknowledged = state.read_bytes()
    spool.append(calls(1))
    die(spool)
    state.write_bytes(acknowledged)
    assert seqs(read(root)[0]) == [1, 2, 3, 4]


def test_confirmed_segments_are_removed_but_the_last(root: Path) -> None:
    with Spool.open(root, SMALL) as spool:
        for _ in range(30):
            spool.append(calls(1))
        source = reader(root)
        folder = Folder(root / spool.writer)
        numbers = folder.segments()
        source.release(spool.writer, SpoolPosition(3, 0))
        assert folder.segments() == [number for number in numbers if number >= 3]
        source.release(spool.writer, SpoolPosition(10**6, 0))
        assert folder.segments() == numbers[-1:]
        assert [ref.seq for ref in spool.append(calls(1))] == [61, 62]


def test_a_takeover_reads_from_the_last_snapshot_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SNAPSHOT_EVERY", 3000)
    lost = new_id("call_")
    spool = Spool.open(root)
    spool.append([decided(lost)])
    for _ in range(20):
        spool.append(calls(1))
    place = Folder(root / spool.writer).state()[1]
    assert place.offset > 10_000
    die(spool)
    path = last_segment(root, spool.writer)
    raw = path.read_bytes()
    path.write_bytes(raw[:500] + b"?" * 100 + raw[600:])  # damage before it is the reader's to find
    with Spool.open(root) as second:
        assert second.writer == spool.writer
        assert [call.call for call in second.open_calls] == [lost]
        assert [ref.seq for ref in second.append(calls(1))] == [42, 43]
    assert "are damaged" in read(root)[1][0]
