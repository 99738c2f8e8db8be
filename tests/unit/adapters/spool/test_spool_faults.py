import os
import shutil
from pathlib import Path

import pytest
from audit_trails import calls, decided, finished, new_id
from spool_folders import SMALL, START, die, last_segment, read, reader, seqs

from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_adapters.spool import spool as module
from fulcrum_mcp.core.audit import parse_record
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import SpoolPosition


class Broken:
    """Makes the next system calls of the spool fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, error: int, *, short: int = -1) -> None:
        self.left = 1
        real = getattr(os, name)

        def fail(*args: object) -> object:
            if self.left > 0:
                self.left -= 1
                if short >= 0:
                    real(args[0], memoryview(args[1])[:short], *args[2:])  # type: ignore[arg-type]
                raise OSError(error, os.strerror(error))
            return real(*args)

        monkeypatch.setattr(module if name == "fdatasync" else os, "_fdatasync" if name == "fdatasync" else name, fail)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.mark.parametrize("cut", [1, 8, 9, 100, 300])
def test_a_torn_end_is_cut_off_and_what_was_acknowledged_stays(root: Path, cut: int) -> None:
    spool = Spool.open(root)
    spool.append(calls(1))
    path = last_segment(root, spool.writer)
    whole = path.stat().st_size
    committed = (path.parent / "state").read_bytes()
    spool.append(calls(1))
    end = path.read_bytes()
    die(spool)
    path.write_bytes(end[: whole + cut])  # killed in the middle of the second write
    (path.parent / "state").write_bytes(committed)
    with Spool.open(root) as second:
        assert second.writer == spool.writer
        second.append(calls(1))
    lines, faults = read(root)
    assert seqs(lines) in ([1, 2, 3, 4], [1, 2, 3, 4, 5])
    assert faults == []


def test_zeros_at_the_end_are_a_torn_end(root: Path) -> None:
    spool = Spool.open(root)
    spool.append(calls(1))
    die(spool)
    with last_segment(root, spool.writer).open("ab") as file:
        file.write(b"\0" * 5000)
    with Spool.open(root) as second:
        assert second.writer == spool.writer
        second.append(calls(1))
    assert seqs(read(root)[0]) == [1, 2, 3, 4]


def test_damage_in_the_middle_is_reported_kept_and_the_chains_end(root: Path) -> None:
    spool = Spool.open(root)
    for _ in range(3):
        spool.append(calls(1))
    die(spool)
    path = last_segment(root, spool.writer)
    raw = bytearray(path.read_bytes())
    place = raw.index(b'"seq":3')
    raw[place + 40] ^= 1
    path.write_bytes(raw)
    with Spool.open(root) as second:
        assert second.writer != spool.writer
        second.append(calls(1))
        source = reader(root)
        first = source.read(spool.writer, START)
        assert first is not None
        assert len(first.lines) == 2
        damage = source.read(spool.writer, first.position)
        assert damage is not None
        assert "are damaged" in damage.faults[0]
        rest = source.read(spool.writer, damage.position)
        assert rest is not None
        assert [parse_record(line).seq for line in rest.lines] == [4, 5, 6]  # type: ignore[union-attr]
        source.release(spool.writer, rest.position)
        assert source.writers() == [second.writer]
        kept = list((root.parent / "aside").iterdir())
        assert [item.read_bytes() for item in kept] == [bytes(raw)]


def test_a_lost_end_is_reported(root: Path) -> None:
    spool = Spool.open(root)
    spool.append(calls(1))
    spool.append(calls(1))
    die(spool)
    path = last_segment(root, spool.writer)
    os.truncate(path, path.stat().st_size - 10)
    with Spool.open(root) as second:
        assert second.writer != spool.writer
    assert "damaged" in (root / spool.writer / "retired").read_text()


def test_open_calls_of_a_damaged_spool_pass_to_its_successor(root: Path) -> None:
    lost = new_id("call_")
    spool = Spool.open(root)
    spool.append([*calls(1), decided(lost)])
    die(spool)
    path = last_segment(root, spool.writer)
    path.write_bytes(path.read_bytes().replace(b'"seq":1,', b'"seq":7,'))
    found = [(orphan.writer, [call.call for call in orphan.open_calls]) for orphan in Spool.orphans(root)]
    assert [calls for _, calls in found] == [[lost]]
    assert found[0][0] != spool.writer
    successor = Spool.open(root)
    assert successor.writer == found[0][0]
    successor.append([finished(lost, outcome="outcome_unknown")])
    successor.close()
    assert list(Spool.orphans(root)) == []


@pytest.mark.parametrize(("error", "short"), [(28, 0), (28, 200), (5, 0), (27, 50)])
def test_a_failing_disk_denies_and_leaves_no_trace(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: int, short: int
) -> None:
    with Spool.open(root, SMALL) as spool:
        spool.append(calls(1))
        size = last_segment(root, spool.writer).stat().st_size
        with monkeypatch.context() as patch:
            Broken(patch, "pwrite", error, short=short)
            with pytest.raises(Unavailable, match="calls are denied"):
                spool.append(calls(1))
        assert last_segment(root, spool.writer).stat().st_size == size
        assert [ref.seq for ref in spool.append(calls(1))] == [3, 4]
    assert seqs(read(root)[0]) == [1, 2, 3, 4]


def test_after_a_failed_fdatasync_the_segment_is_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Spool.open(root) as spool:
        spool.append(calls(1))
        path = last_segment(root, spool.writer)
        with monkeypatch.context() as patch:
            Broken(patch, "fdatasync", 5)
            with pytest.raises(Unavailable):
                spool.append(calls(1))
        refs = spool.append(calls(1))
        assert [ref.seq for ref in refs] == [3, 4]
        assert last_segment(root, spool.writer) != path
    assert seqs(read(root)[0]) == [1, 2, 3, 4]


def test_a_refused_write_that_comes_back_after_a_crash_is_not_believed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fdatasync fails, the cut does not reach the disk either, power is lost: the bytes are there again."""
    spool = Spool.open(root)
    spool.append(calls(1))
    path = last_segment(root, spool.writer)
    kept: list[bytes] = []
    with monkeypatch.context() as patch:
        Broken(patch, "fdatasync", 5)
        patch.setattr(os, "ftruncate", lambda *_: kept.append(path.read_bytes()))
        with pytest.raises(Unavailable):
            spool.append(calls(1))
    spool.append(calls(1))
    die(spool)
    assert len(kept[0]) > 1000
    path.write_bytes(kept[0])
    with Spool.open(root) as second:
        assert second.writer == spool.writer
    assert seqs(read(root)[0]) == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["open", "write"])
def test_a_failed_rotation_denies_and_the_next_one_works(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Spool.open(root, SMALL) as spool:
        while last_segment(root, spool.writer).stat().st_size < 4096 - 1000:
            spool.append([finished(new_id("call_"))])
        before = len(read(root)[0])
        with monkeypatch.context() as patch:
            Broken(patch, name, 28)
            with pytest.raises(Unavailable):
                spool.append(calls(1))
        spool.append(calls(1))
    assert len(seqs(read(root)[0])) == before + 2
    assert read(root)[1] == []


def test_a_segment_killed_while_it_was_made_is_ignored(root: Path) -> None:
    spool = Spool.open(root, SMALL)
    spool.append(calls(2))
    die(spool)
    (root / spool.writer / "00000002.seg").write_bytes(b"H\0\0")
    with Spool.open(root, SMALL) as second:
        assert second.writer == spool.writer
        second.append(calls(1))
    assert seqs(read(root)[0]) == [1, 2, 3, 4, 5, 6]


def test_a_full_spool_denies_until_the_store_confirms(root: Path) -> None:
    with Spool.open(root, SpoolConfig("os", segment_bytes=4096, max_bytes=20_000)) as spool:
        written = 0
        while spool.size() < 18_000:
            written += len(spool.append(calls(1)))
        assert spool.size() == sum(path.stat().st_size for path in (root / spool.writer).glob("*.seg"))
        with pytest.raises(Unavailable, match="not confirmed"):
            spool.append(calls(3))
        reader(root).release(spool.writer, SpoolPosition(10**6, 0))
        assert spool.append(calls(1))[0].seq == written + 1
        assert spool.size() < 18_000


def test_a_read_only_root_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="spool"):
        Spool.open(tmp_path / "file" / "spool")


def test_after_a_failed_rotation_the_old_segment_is_not_written_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one may come back after a crash, with what it says of the end of the old one."""
    with Spool.open(root, SMALL) as spool:
        while last_segment(root, spool.writer).stat().st_size < 4096 - 1000:
            spool.append([finished(new_id("call_"))])
        path = last_segment(root, spool.writer)
        size = path.stat().st_size
        with monkeypatch.context() as patch:
            Broken(patch, "write", 5)
            with pytest.raises(Unavailable):
                spool.append(calls(3))
        spool.append([finished(new_id("call_"))])
        assert path.stat().st_size == size
        assert last_segment(root, spool.writer) != path


def test_a_takeover_that_fails_closes_each_file_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spool.open(root).close()
    with monkeypatch.context() as patch:
        Broken(patch, "fdatasync", 5)
        with pytest.raises(Unavailable, match="cannot be written"):
            Spool.open(root)
    with Spool.open(root) as spool:
        assert len(list(root.iterdir())) == 1
        spool.append(calls(1))


@pytest.mark.parametrize("what", ["*.seg", "lock", "state", "*"])
def test_files_that_are_removed_deny_once_and_a_new_writer_begins(root: Path, what: str) -> None:
    with Spool.open(root) as spool:
        spool.append(calls(1))
        first = spool.writer
        for path in (root / first).glob(what):
            path.unlink()
        if what == "*":
            (root / first).rmdir()
            root.rmdir()
        with pytest.raises(Unavailable, match="was removed"):
            spool.append(calls(1))
        refs = spool.append(calls(2))
        assert spool.writer != first
        assert [(ref.chain, ref.seq) for ref in refs] == [(f"{spool.writer}.default", n) for n in (1, 2, 3, 4)]
        assert len([line for line in read(root)[0] if spool.writer.encode() in line]) == 4


def test_a_spool_whose_place_is_taken_denies_until_it_is_free(root: Path) -> None:
    with Spool.open(root) as spool:
        spool.append(calls(1))
        shutil.rmtree(root)
        root.touch()
        for _ in range(2):
            with pytest.raises(Unavailable, match="spool"):
                spool.append(calls(1))
        root.unlink()
        assert [ref.seq for ref in spool.append(calls(1))] == [1, 2]
