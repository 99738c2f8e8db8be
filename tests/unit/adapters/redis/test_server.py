import socket
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from fulcrum_adapters.redis import RedisConfig, RedisLedger, RedisStore
from fulcrum_adapters.redis.breaker import PAUSE
from fulcrum_adapters.redis.server import RedisServer, Script
from fulcrum_mcp.core.budget import Expire
from fulcrum_mcp.errors import Unavailable

AUTHENTICATED = b"+OK\r\n"


def converse(connection: socket.socket, answers: Sequence[bytes | None]) -> None:
    with suppress(OSError):
        for answer in answers:
            if not connection.recv(65_536):
                return
            if answer is None:
                connection.close()
                return
            connection.sendall(answer)
        while connection.recv(65_536):
            pass


@contextmanager
def answering(*answers: bytes | None) -> Iterator[int]:
    """A server that gives each connection these answers, one a request, then falls silent; None closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_ones.append(connection)
                threading.Thread(target=converse, args=(connection, answers), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_ones:
            connection.close()


def told(port: int, *, password: str = "hunter2", timeout: float = 5.0) -> Unavailable:
    store = RedisStore(RedisConfig(f"redis://who:{password}@127.0.0.1:{port}/0", timeout=timeout))
    try:
        with pytest.raises(Unavailable) as caught:
            RedisLedger(store).apply([Expire(1)])
    finally:
        store.close()
    fault = caught.value
    shown = "".join(traceback.format_exception(fault))
    assert password not in f"{fault!r} {shown} {store.config!r}"
    assert f"127.0.0.1:{port}" in str(fault)
    return fault


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"-READONLY You can't write against a read only replica.\r\n", "primary"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "wait for it"),
        (b"-BUSY Redis is busy running a script.\r\n", "SCRIPT KILL"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "raise its maxmemory"),
        (b"-NOPERM this user has no permissions\r\n", "does not permit"),
        (b"-NOAUTH Authentication required.\r\n", "wants a password"),
        (b"-MISCONF Errors writing to the AOF file\r\n", "see its log"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "point redis.url at the primary"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "needs one primary"),
        (b"-ERR max number of clients reached\r\n", "raise its maxclients"),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "choose another redis.prefix"),
        (b"-ERR WRONGTYPE Operation against a key script: 5f, on @user_script:9.\r\n", "choose another redis.prefix"),
        (b"-ERR user_script:1: READONLY You can't write against a read only replica.\r\n", "primary"),
        (b"-DAMAGED the request\r\n", "check the network"),
    ],
)
def test_what_was_certainly_not_done_is_told_with_its_remedy(answer: bytes, says: str) -> None:
    with answering(AUTHENTICATED, answer) as port:
        fault = told(port)
    assert says in str(fault)
    assert not fault.doubtful


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "does not answer in time"),
        (None, "broke"),
        (b"$100\r\nhalf", "does not answer in time"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the protocol"),
        (b"\x00\x01\x02\x03\r\n", "does not speak the protocol"),
        (b"+OK\r\n", "never says"),
        (b":7\r\n", "never says"),
        (b"$-1\r\n", "never says"),
        (b"*1\r\n$1\r\nx\r\n", "never says"),
        (b"$3\r\nabc\r\n", "never says"),
        (b"-ERR something new\r\n", "something new"),
    ],
)
def test_what_may_have_been_done_is_told_as_doubtful(answer: bytes | None, says: str) -> None:
    with answering(AUTHENTICATED, answer) as port:
        fault = told(port, timeout=1.0 if "in time" in says else 5.0)
    assert says in str(fault)
    assert fault.doubtful


FORGOTTEN = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"


def test_script_forgotten_between_its_loading_and_its_use_is_loaded_again() -> None:
    script = Script("ledger.lua")
    loaded = f"${len(script.sha)}\r\n{script.sha}\r\n".encode()
    with answering(FORGOTTEN, loaded, FORGOTTEN, loaded, b"$4\r\ndone\r\n") as port:
        server = RedisServer(RedisConfig(f"redis://127.0.0.1:{port}", timeout=5))
        assert server.run(script, "key") == b"done"
        server.close()


def test_script_that_is_never_kept_was_certainly_not_run() -> None:
    script = Script("ledger.lua")
    loaded = f"${len(script.sha)}\r\n{script.sha}\r\n".encode()
    with answering(*([FORGOTTEN, loaded] * 3), FORGOTTEN) as port:
        server = RedisServer(RedisConfig(f"redis://127.0.0.1:{port}", timeout=5))
        with pytest.raises(Unavailable) as caught:
            server.run(script, "key")
        server.close()
    assert "SCRIPT FLUSH" in str(caught.value)
    assert not caught.value.doubtful


@pytest.mark.parametrize(
    "answer",
    [b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", b"HTTP/1.1 400\r\n\r\n", None, b""],
)
def test_what_fails_before_anything_is_sent_is_not_doubtful(answer: bytes | None) -> None:
    with answering(answer) as port:
        assert not told(port, timeout=1.0).doubtful


def test_nobody_who_listens_is_not_doubtful() -> None:
    with answering() as port:
        pass
    fault = told(port)
    assert "cannot be reached" in str(fault)
    assert not fault.doubtful


def test_silent_server_is_waited_for_once_and_then_probed_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"") as port:
        server = RedisServer(RedisConfig(f"redis://127.0.0.1:{port}", timeout=0.5))
        now = time.monotonic()
        monkeypatch.setattr(server._breaker, "_clock", lambda: now)
        with pytest.raises(Unavailable) as first:
            server.command("PING")
        assert first.value.doubtful
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(Unavailable, match=r"not answer in time.*asked again in a moment") as refused:
                server.command("PING")
            assert not refused.value.doubtful
        assert time.monotonic() - began < 5, "each would have waited for half a second"
        later = now + PAUSE
        monkeypatch.setattr(server._breaker, "_clock", lambda: later)
        with pytest.raises(Unavailable, match="in time") as probe:
            server.command("SET", "k", "v")
        assert not probe.value.doubtful, "only PING was sent"
        server.close()


def test_late_answer_is_not_taken_for_the_next_one() -> None:
    with answering(b"", b"+first\r\n+second\r\n") as port:
        server = RedisServer(RedisConfig(f"redis://127.0.0.1:{port}", timeout=0.1))
        with pytest.raises(Unavailable):
            server.command("ECHO", "first")
        assert not server._pool._available_connections[0].is_connected
        server.close()
