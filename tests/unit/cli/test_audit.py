import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from sqlite3 import connect
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from audit_trails import calls, decided, finished, new_id, small_trail, verdict
from conftest_cli import Run

from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.composition.audit import open_keys, open_spool


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten records of five calls, only in the spool of a writer that is gone."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    call = new_id("call_")
    with open_spool(folder) as spool:
        spool.append(calls(3))
        spool.append([decided(call, effect="deny", tool="write_file", agent="bob\x1b[31m"), *calls(1)])
        spool.append([finished(new_id("call_"), outcome="timeout")])
    return folder


def test_an_export_holds_what_was_only_in_the_spool_and_verifies(run: Run, data: Path, tmp_path: Path) -> None:
    trail = tmp_path / "trail.jsonl"
    made = run("audit", "export", "-o", str(trail))
    assert made.code == 0, made.err
    assert trail.stat().st_mode & 0o777 == 0o600
    verified = run("audit", "verify", str(trail), "--public-key", str(data / "keys" / "audit.pub"))
    assert (verified.code, verified.out) == (0, "10 records, 1 chains, 1 checkpoints: whole\n")


def test_one_changed_byte_is_named_and_exits_with_1(run: Run, data: Path, tmp_path: Path) -> None:
    trail, key = tmp_path / "trail.jsonl", str(data / "keys" / "audit.pub")
    assert run("audit", "export", "-o", str(trail)).code == 0
    trail.write_bytes(trail.read_bytes().replace(b'"outcome":"timeout"', b'"outcome":"timeouT"'))
    broken = run("audit", "verify", str(trail), "--public-key", key)
    chain = json.loads(trail.read_bytes().splitlines()[0])["chain"]
    assert (broken.code, broken.out) == (1, f"broken at chain {chain} seq 10: hash differs\n")
    told = json.loads(run("audit", "verify", str(trail), "--public-key", key, "--json").out)
    assert told["whole"] is False
    assert told["fault"] == {"line": 10, "where": f"chain {chain} seq 10", "what": "hash differs"}


def test_verify_needs_nothing_but_the_file_and_the_key(run: Run, tmp_path: Path) -> None:
    keys = AuditKeys(tmp_path / "keys")
    (tmp_path / "trail").write_bytes(b"".join(small_trail(keys)))
    assert run("audit", "verify", str(tmp_path / "trail"), "--public-key", str(keys.public_path)).code == 0
    other = AuditKeys(tmp_path / "other")
    foreign = run("audit", "verify", str(tmp_path / "trail"), "--public-key", str(other.public_path))
    assert foreign.code == 1
    assert f"not by {other.key_id}" in foreign.out


@pytest.mark.parametrize("content", [b"", b"\n", b"hello", b"\x1f\x8b\x08" + bytes(range(256)), b"[" * 100_000])
def test_a_file_that_is_no_export_is_broken_without_a_traceback(run: Run, tmp_path: Path, content: bytes) -> None:
    keys = AuditKeys(tmp_path / "keys")
    (tmp_path / "trail").write_bytes(content)
    ran = run("audit", "verify", str(tmp_path / "trail"), "--public-key", str(keys.public_path))
    assert ran.code == 1
    assert ran.out.startswith("broken at line 1")
    assert len(ran.out.splitlines()) == 1


@pytest.mark.parametrize("which", ["file", "key", "folder", "garbage", "private"])
def test_what_cannot_be_read_exits_with_2_and_is_named(run: Run, tmp_path: Path, which: str) -> None:
    keys = AuditKeys(tmp_path / "keys")
    trail = tmp_path / "trail"
    trail.write_bytes(b"".join(small_trail(keys)))
    (tmp_path / "garbage.pub").write_bytes(b"\xff\x00")
    file, key = {
        "file": (tmp_path / "absent", keys.public_path),
        "key": (trail, tmp_path / "absent"),
        "folder": (tmp_path, keys.public_path),
        "garbage": (trail, tmp_path / "garbage.pub"),
        "private": (trail, tmp_path / "keys" / "audit.key"),
    }[which]
    ran = run("audit", "verify", str(file), "--public-key", str(key))
    assert ran.code == 2
    assert str(file if which in {"file", "folder"} else key) in ran.err
    assert "Traceback" not in ran.err


def test_an_export_of_a_changed_store_is_not_signed_and_exits_with_1(run: Run, data: Path, tmp_path: Path) -> None:
    trail = tmp_path / "trail.jsonl"
    assert run("audit", "query").code == 0
    with closing(connect(data / "audit.db")) as db:
        db.execute("UPDATE audit_events SET line = CAST(replace(line, 'alice', 'malic') AS BLOB) WHERE seq = 3")
        db.commit()
    ran = run("audit", "export", "-o", str(trail))
    assert ran.code == 1
    assert "seq 3: hash differs" in ran.err
    assert run("audit", "verify", str(trail), "--public-key", str(data / "keys" / "audit.pub")).code == 1


def test_a_query_prints_one_clean_line_a_call(run: Run, data: Path) -> None:
    ran = run("audit", "query", "--tool", "files__*", "--effect", "deny")
    assert data.exists()
    assert ran.code == 0, ran.err
    (line,) = ran.out.splitlines()
    assert "denied" in line
    assert "files__write_file" in line
    assert line.isprintable()


def test_a_query_gives_records_verbatim_to_machines_oldest_first(run: Run, data: Path) -> None:
    assert data.exists()
    ran = run(
        "audit", "query", "--json", "--type", "all", "--limit", "3", "--since", "2026-01-01", "--until", "2040-01-01"
    )
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["seq"] for event in events] == [8, 9, 10]
    assert run("audit", "query", "--agent", "nobody").err == "nothing matches\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("query", "--since", "yesterday"), '--since "yesterday"'),
        (("query", "--since", "9" * 400), "--since"),
        (("query", "--limit", "0"), "--limit"),
        (("query", "--url", "http://x", "--data", "y"), "both given"),
        (("export", "-o", "/nowhere/at/all/trail"), "/nowhere/at/all/trail"),
        (("verify", "x"), "--public-key"),
    ],
)
def test_wrong_use_names_the_place(run: Run, data: Path, argv: tuple[str, ...], said: str) -> None:
    assert data.exists()
    ran = run("audit", *argv)
    assert ran.code == 2
    assert said in ran.err


def test_where_nothing_was_recorded_says_so_and_makes_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("audit", "query", "--data", str(tmp_path / "empty"))
    assert ran.code == 3
    assert "nothing is recorded here" in ran.err
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("argv", [("query",), ("tail", "--no-follow"), ("export", "-o", "-")])
def test_where_the_trail_is_in_postgres_a_gateway_is_to_be_named(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FULCRUM_POSTGRES_URL", "postgresql://fulcrum:s3cret@db/fulcrum_metrics")
    ran = run("audit", *argv, "--data", str(data))
    assert ran.code == 2
    assert "keeps its trail in Postgres; name a gateway with --url" in ran.err
    assert "s3cret" not in ran.err


def test_tail_shows_a_line_a_call_and_what_went_wrong(run: Run, data: Path) -> None:
    assert data.exists()
    ran = run("audit", "tail", "--no-follow", "-n", "100")
    lines = ran.out.splitlines()
    assert len(lines) == 6
    assert sum("allowed" in line for line in lines) == 4
    assert "timeout" in lines[-1]
    assert len(run("audit", "tail", "--no-follow", "-n", "2", "--json").out.splitlines()) == 2


class Elsewhere(BaseHTTPRequestHandler):
    """A server that speaks the REST paths of the audit trail."""

    trail: ClassVar[list[bytes]] = []
    asked: ClassVar[list[str]] = []
    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = urlsplit(self.path)
        self.send_response(self.status)
        self.end_headers()
        if self.status != 200:
            self.wfile.write(b'{"code":"forbidden","error":"the key lacks scope audit:read"}')
        elif parts.path == "/api/v1/audit/export":
            assert self.headers["authorization"] == "Bearer flcrm_sk_x_y"
            self.wfile.write(b"".join(self.trail))
        else:
            records = [line[:-1] for line in self.trail if line.startswith(b'{"specversion"')]
            limit = int(parse_qs(parts.query)["limit"][0])
            self.wfile.write(b'{"records":[' + b",".join(records[:limit]) + b'],"next":7}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def elsewhere(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    del run  # it clears the environment first
    monkeypatch.setenv("FULCRUM_API_KEY", "flcrm_sk_x_y")
    monkeypatch.setattr(Elsewhere, "trail", small_trail(AuditKeys(tmp_path / "keys")))
    monkeypatch.setattr(Elsewhere, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_trail_elsewhere_is_exported_over_rest(run: Run, elsewhere: str, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run("audit", "export", "-o", str(out), "--url", elsewhere).code == 0
    keys = open_keys(tmp_path)
    assert verdict(out.read_bytes().splitlines(keepends=True), keys) is None


def test_an_export_without_its_manifest_is_not_called_done(run: Run, elsewhere: str, tmp_path: Path) -> None:
    Elsewhere.trail.pop()
    ran = run("audit", "export", "-o", str(tmp_path / "out.jsonl"), "--url", elsewhere)
    assert ran.code == 1
    assert "no manifest" in ran.err


def test_a_trail_elsewhere_is_queried_over_rest(run: Run, elsewhere: str) -> None:
    ran = run("audit", "query", "--url", elsewhere, "--tool", "files__*", "--since", "1h", "--limit", "2", "--json")
    assert len(ran.out.splitlines()) == 2, ran.err
    asked = parse_qs(urlsplit(Elsewhere.asked[0]).query)
    assert asked["tool"] == ["files__*"]
    assert asked["since"][0].endswith("+00:00")
    assert run("audit", "tail", "--no-follow", "--url", elsewhere, "-n", "3").code == 0


def test_a_key_that_may_not_read_is_told_so(run: Run, elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elsewhere, "status", 403)
    for command in (("query",), ("export", "-o", "-")):
        ran = run("audit", *command, "--url", elsewhere)
        assert ran.code == 2
        assert "audit:read" in ran.err


def test_nobody_there_exits_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULCRUM_API_KEY", "flcrm_sk_x_y")
    ran = run("audit", "export", "-o", "-", "--url", "http://127.0.0.1:9")
    assert ran.code == 3
    assert "is a gateway running there" in ran.err
