"""A recorded decision over REST and from a data folder: what comes back, and every way in which it does not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fulcrum_mcp.cli.policy_record import recorded
from fulcrum_mcp.errors import FulcrumError, Invalid, NotFound, Unauthenticated, Unavailable, Unprivileged

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

        def log_message(self, *_: object) -> None:
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
    monkeypatch.setenv("FULCRUM_API_KEY", "made-up")
    with server(200, GOOD) as (url, seen):
        assert recorded("dec_1/../x", None, url) == ({"decision_id": "dec_1"}, {"phase": "call"})
    assert seen == [("/api/v1/decisions/dec_1%2F..%2Fx", "Bearer made-up")]


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


def test_an_unknown_decision_of_a_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="dec_1"):
        recorded("dec_1", tmp_path, None)
