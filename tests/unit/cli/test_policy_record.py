"""A recorded decision over REST and from a data folder: what comes back, and every way in which it does not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from audit_trails import decided, new_id

from fulcrum_mcp.cli.policy_record import recorded
from fulcrum_mcp.composition.audit import open_spool
from fulcrum_mcp.errors import FulcrumError, Invalid, NotFound, Unauthenticated, Unavailable, Unprivileged


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FULCRUM_URL", raising=False)
    monkeypatch.setenv("FULCRUM_API_KEY", "made-up")


GOOD = json.dumps({"decided": {"data": {"decision_id": "dec_1"}}, "inputs": {"phase": "call"}, "finished": []}).encode()


@contextmanager
def server(status: int, body: bytes) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("authorization")))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's names
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", seen
        finally:
            http.shutdown()
            thread.join(10)


def test_a_decision_is_fetched_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, GOOD) as (url, seen):
        assert recorded("dec_1/../x", None, url) == ({"decision_id": "dec_1"}, {"phase": "call"})
        monkeypatch.setenv("FULCRUM_URL", url)
        assert recorded("dec_2", None, None) == ({"decision_id": "dec_1"}, {"phase": "call"})
    assert seen == [
        ("/api/v1/decisions/dec_1%2F..%2Fx", "Bearer made-up"),
        ("/api/v1/decisions/dec_2", "Bearer made-up"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, b"", Unauthenticated),
        (403, b"", Unprivileged),
        (404, b"", NotFound),
        (500, b"", Unavailable),
        (302, b"", Unavailable),
        (200, b"<html>", Unavailable),
        (200, b"[]", Unavailable),
        (200, b'{"decided": null}', Unavailable),
        (200, b'{"decided": {"data": 1}, "inputs": null, "finished": []}', Unavailable),
    ],
)
def test_any_other_answer_is_an_error_of_its_kind(status: int, body: bytes, error: type[FulcrumError]) -> None:
    with server(status, body) as (url, _), pytest.raises(error):
        recorded("dec_1", None, url)


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        recorded("dec_1", None, "http://127.0.0.1:1")


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        recorded("dec_1", tmp_path, "http://127.0.0.1:1")
    with pytest.raises(Invalid):
        recorded("dec_1", None, "file:///etc/passwd")
    for url in ("http://127.0.0.1:99999", "http://127.0.0.1:port", "http://["):
        with pytest.raises(Invalid, match="--url"):
            recorded("dec_1", None, url)


def test_no_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FULCRUM_API_KEY", "FULCRUM_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Invalid, match="FULCRUM_API_KEY"):
        recorded("dec_1", None, "http://127.0.0.1:1")


def test_a_decision_that_is_only_in_the_spool_is_found(tmp_path: Path) -> None:
    call = new_id("call_")
    draft = decided(call)
    with open_spool(tmp_path) as spool:
        spool.append([draft])
    decision_id = json.loads(draft.data)["decision_id"]
    assert recorded(decision_id, tmp_path, None)[0]["call_id"] == call
    with pytest.raises(NotFound, match="dec_1"):
        recorded("dec_1", tmp_path, None)


def test_a_folder_without_records_is_unavailable_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nothing is recorded here"):
        recorded("dec_1", tmp_path / "none", None)
    assert not (tmp_path / "none").exists()
