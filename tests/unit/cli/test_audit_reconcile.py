import json
import shutil
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest
from audit_trails import calls
from conftest_cli import Run

from fulcrum_adapters.spool import FileLeadership
from fulcrum_mcp.composition.audit import open_spool


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten records in the spool of a writer that is gone."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    with open_spool(folder) as spool:
        spool.append(calls(3))
        spool.append(calls(2, tenant="acme"))
    return folder


def harm(data: Path, statement: str) -> None:
    with closing(connect(data / "audit.db")) as store:
        assert store.execute(statement).rowcount > 0
        store.commit()


def test_a_trail_that_is_the_same_everywhere_exits_with_0(run: Run, data: Path) -> None:
    found = run("audit", "reconcile")
    assert (found.code, found.out) == (0, "spool 10, store 10 records in 2 chains: the same everywhere\n"), found.err
    told = json.loads(run("audit", "reconcile", "--json", "--data", str(data)).out)
    assert (told["clean"], told["spool"], told["stream"], told["store"]) == (True, 10, None, 10)
    assert [(each["spool"], each["contiguous"], each["last"]) for each in told["chains"]] == [(4, 4, 4), (6, 6, 6)]


def test_where_there_is_no_spool_it_is_said_that_nothing_was_compared(run: Run, data: Path) -> None:
    assert run("audit", "reconcile").code == 0
    shutil.rmtree(data / "spool")
    found = run("audit", "reconcile", "--wait", "0")
    said = (
        f"no differences; nothing to compare on this machine: no spool in {data / 'spool'}, --data names another folder"
    )
    assert (found.code, found.out) == (0, f"no spool, store 10 records in 2 chains: {said}\n")
    told = json.loads(run("audit", "reconcile", "--wait", "0", "--json").out)
    assert (told["clean"], told["spool"], told["store"]) == (True, None, 10)
    harm(data, "DELETE FROM audit_events WHERE tenant = 'default' AND seq = 2")
    found = run("audit", "reconcile", "--wait", "0")
    assert (found.code, "nothing to compare" in found.err) == (1, True)


def test_what_the_store_has_lost_is_named_and_repaired_from_the_spool(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("audit", "reconcile").code == 0
    harm(data, "DELETE FROM audit_events WHERE tenant = 'default' AND seq IN (2, 3, 6)")
    found = run("audit", "reconcile", "--wait", "0")
    assert found.code == 1
    head, *rows = found.out.splitlines()
    assert head.split() == ["CHAIN", "SEQ", "WHAT", "WHERE"]
    assert [row.split()[1:3] for row in rows] == [["2-3", "missing"], ["6", "missing"]]
    assert all(row.endswith("in the spool, not in the store") for row in rows)
    assert "--repair" in found.err
    mended = run("audit", "reconcile", "--wait", "0", "--repair")
    assert (mended.code, mended.out.splitlines()) == (
        0,
        ["3 records stored from the spool", "spool 10, store 10 records in 2 chains: the same everywhere"],
    )
    assert run("audit", "export", "-o", str(tmp_path / "trail")).code == 0
    verified = run("audit", "verify", str(tmp_path / "trail"), "--public-key", str(data / "keys" / "audit.pub"))
    assert (verified.code, verified.out.split()[:2]) == (0, ["10", "records,"])


def test_what_nobody_has_any_more_is_named_and_stays(run: Run, data: Path) -> None:
    assert run("audit", "reconcile").code == 0
    for segment in (data / "spool").rglob("*.seg"):
        segment.unlink()
    harm(data, "DELETE FROM audit_events WHERE tenant = 'default' AND seq IN (2, 6)")
    found = run("audit", "reconcile", "--wait", "0", "--repair", "--json")
    told = json.loads(found.out)
    missing = [(each["first"], each["repairable"]) for each in told["differences"] if each["what"] == "missing"]
    assert (found.code, missing) == (1, [(2, False), (6, False)])


def test_what_was_changed_in_the_store_is_named_and_never_overwritten(run: Run, data: Path) -> None:
    assert run("audit", "reconcile").code == 0
    changed = "CAST(replace(line, 'alice', 'malic') AS BLOB)"
    harm(data, f"UPDATE audit_events SET line = {changed} WHERE seq = 1 AND tenant = 'acme'")
    found = run("audit", "reconcile", "--wait", "0", "--repair", "--json")
    assert found.code == 1
    assert [(each["first"], each["what"]) for each in json.loads(found.out)["differences"]] == [(1, "changed")]


def test_while_another_process_leads_nothing_is_repaired(run: Run, data: Path) -> None:
    assert run("audit", "reconcile").code == 0
    harm(data, "DELETE FROM audit_events WHERE tenant = 'default' AND seq = 2")
    leadership = FileLeadership(data / "processor.lock")
    assert leadership.acquire()
    try:
        refused = run("audit", "reconcile", "--wait", "0", "--repair")
        assert (refused.code, "stop it, then repair" in refused.err) == (3, True)
        assert run("audit", "reconcile", "--wait", "0").code == 1
    finally:
        leadership.release()


def test_a_part_that_cannot_be_asked_exits_with_3(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = run("audit", "reconcile", "--data", str(tmp_path / "nowhere"))
    assert (nothing.code, "nothing is recorded here" in nothing.err) == (3, True)
    monkeypatch.setenv("FULCRUM_POSTGRES_URL", "postgresql://me:hush@127.0.0.1:1/fulcrum")
    missing = run("audit", "reconcile")
    assert (missing.code, "FULCRUM_NATS_URL" in missing.err) == (2, True)
    monkeypatch.setenv("FULCRUM_NATS_URL", "nats://127.0.0.1:1")
    down = run("audit", "reconcile")
    assert (down.code, "postgres 127.0.0.1:1/fulcrum" in down.err) == (3, True)
    assert "hush" not in down.err
