import http.server
import threading
from collections.abc import Iterator

import pytest

from fulcrum_adapters.identity.fetch import jwks_fetch
from fulcrum_mcp.errors import Unavailable

pytestmark = pytest.mark.anyio
ANSWERS = {
    "/keys?v=1": (200, b'{"keys": []}', {}),
    "/moved": (302, b"", {"location": "/keys?v=1"}),
    "/broken": (500, b'{"keys": []}', {}),
    "/list": (200, b"[]", {}),
    "/rubbish": (200, b"<html>", {}),
    "/deep": (200, b"[" * 100_000, {}),
    "/huge": (200, b'{"keys": "' + b"x" * 300_000 + b'"}', {}),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def issuer() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = ANSWERS[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


async def test_keys_are_fetched(issuer: str) -> None:
    assert await jwks_fetch(f"{issuer}/keys?v=1")() == {"keys": []}


@pytest.mark.parametrize("path", ["/moved", "/broken", "/list", "/rubbish", "/deep", "/huge"])
async def test_anything_else_is_unavailable(issuer: str, path: str) -> None:
    with pytest.raises(Unavailable, match=path):
        await jwks_fetch(issuer + path)()


async def test_an_issuer_that_is_down_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await jwks_fetch("http://127.0.0.1:1/keys")()
