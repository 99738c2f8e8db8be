"""Each fault of the proxy really happens, on connections that exist and on new ones, and ends when it is healed."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers.process import HOST
from servers.proxy import Direction, FaultProxy, Way

pytestmark = pytest.mark.service

TEXT = bytes(range(256)) * 4
WAIT = 30.0
BRIEF = 0.2


class Echo:
    """Gives back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.heard = b""
        self.resets = 0
        self.ends = 0
        self._open = list[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    self.heard += data
                    connection.sendall(data)
                self.ends += 1
            except OSError:
                self.resets += 1

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port) as made:
        yield made


@contextlib.contextmanager
def connected(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), timeout=WAIT) as connection:
        yield connection


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the end after {len(data)} of {size} bytes"
        data += more
    return data


def echoed(connection: socket.socket, data: bytes = TEXT) -> bytes:
    connection.sendall(data)
    return receive(connection, len(data))


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"not within {WAIT:.0f} s: {what}"
        time.sleep(0.002)


def silent(connection: socket.socket, seconds: float = BRIEF) -> bool:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(WAIT)
    return False


def quickest(attempt: Callable[[], float], wanted: float) -> float:
    """Seconds of the first attempt that takes less than wanted, or of the best: a machine may stand still in one."""
    took: list[float] = []
    while len(took) < 10 and min(took, default=wanted) >= wanted:
        took.append(attempt())
    return min(took)


def test_without_a_fault_bytes_pass_as_they_are_and_so_does_each_end(proxy: FaultProxy, echo: Echo) -> None:
    big = TEXT * 1000
    with connected(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(big,))
        sender.start()
        assert receive(connection, len(big)) == big
        sender.join(WAIT)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert echo.ends == 1
    assert proxy.connections == 1
    assert proxy.carried == {"up": len(big), "down": len(big)}
    assert (proxy.swallowed, proxy.flipped) == ({"up": 0, "down": 0}, {"up": 0, "down": 0})


def test_latency_delays_each_way_keeps_order_and_lets_pieces_overlap(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT
        proxy.latency(BRIEF)

        def in_pieces() -> float:
            started = time.monotonic()
            for at in range(0, len(TEXT), 64):
                connection.sendall(TEXT[at : at + 64])
            assert receive(connection, len(TEXT)) == TEXT
            return time.monotonic() - started

        def whole() -> float:
            started = time.monotonic()
            assert echoed(connection) == TEXT
            return time.monotonic() - started

        assert 2 * BRIEF <= quickest(in_pieces, 5 * BRIEF) < 5 * BRIEF  # twice for all sixteen pieces, not for each
        proxy.latency(BRIEF, "down")
        assert BRIEF <= quickest(whole, 2 * BRIEF) < 2 * BRIEF


def test_healing_ends_a_long_latency_at_once_and_loses_nothing(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as connection:
        proxy.latency(60.0)
        connection.sendall(TEXT)
        assert silent(connection)
        assert echo.heard == b""
        proxy.heal()
        assert receive(connection, len(TEXT)) == TEXT


def test_reset_ends_present_and_new_connections_with_a_reset(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    until(lambda: echo.resets == 1, "the server sees the reset too")
    with pytest.raises((ConnectionResetError, BrokenPipeError)), connected(proxy) as connection:
        echoed(connection)
    proxy.heal()
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT


def test_drop_resets_once(proxy: FaultProxy) -> None:
    with connected(proxy) as first:
        assert echoed(first) == TEXT
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            first.recv(1)
        with connected(proxy) as second:
            assert echoed(second) == TEXT


def test_blackhole_accepts_swallows_and_resets_what_lost_bytes_when_healed(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as idle, connected(proxy) as busy:
        assert echoed(idle) == echoed(busy) == TEXT
        heard = echo.heard
        proxy.blackhole()
        busy.sendall(TEXT)
        until(lambda: proxy.swallowed["up"] == len(TEXT), "it is swallowed")
        assert silent(busy)
        with connected(proxy) as fresh:
            fresh.sendall(b"?")
            assert silent(fresh)
        assert echo.heard == heard
        assert echo.ends == 0
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            busy.recv(1)
        assert echoed(idle) == TEXT


def test_blackhole_of_answers_lets_requests_arrive(proxy: FaultProxy, echo: Echo) -> None:
    with connected(proxy) as connection:
        proxy.blackhole("down")
        connection.sendall(TEXT)
        until(lambda: echo.heard == TEXT, "it arrives")
        until(lambda: proxy.swallowed["down"] == len(TEXT), "its answer is swallowed")
        assert silent(connection)
        assert proxy.swallowed["up"] == 0


def test_slice_delivers_all_bytes_in_tiny_pieces(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        proxy.slice(3, 0.001)
        connection.sendall(TEXT[:300])
        data, pieces = b"", 0
        while len(data) < 300:
            piece = connection.recv(4096)
            assert piece
            data += piece
            pieces += 1
        assert data == TEXT[:300]
        assert pieces > 20  # a piece may meet the next in a buffer when the machine is busy
        proxy.heal()
        assert echoed(connection) == TEXT


@pytest.mark.parametrize(("direction", "rounds"), [("up", 1), ("down", 1), ("both", 2)])
def test_corrupt_flips_one_bit_in_every_so_many_bytes(
    proxy: FaultProxy, echo: Echo, direction: Direction, rounds: int
) -> None:
    with connected(proxy) as connection:
        proxy.corrupt(100, direction)
        got = echoed(connection)
        assert len(got) == len(TEXT)
        for way, data in (("up", echo.heard), ("down", got)):
            assert proxy.flipped[_way(way)] == (len(TEXT) // 100 if direction in {way, "both"} else 0)
            if way == "up":
                wrong = [one ^ other for one, other in zip(TEXT, data, strict=True) if one != other]
                assert [mask.bit_count() for mask in wrong] == [1] * proxy.flipped["up"]
        assert (got != TEXT) == (rounds == 1)  # the same bits, flipped twice, are as they were
        proxy.heal()
        assert echoed(connection) == TEXT


def _way(name: str) -> Way:
    return "up" if name == "up" else "down"


def test_refuse_closes_the_door_and_healing_opens_it_on_the_same_port(proxy: FaultProxy) -> None:
    port = proxy.port
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass
    proxy.heal()
    assert proxy.port == port
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT


def test_server_that_is_away_is_seen_as_a_reset_and_works_when_it_is_back(echo: Echo) -> None:
    with FaultProxy(echo.port) as proxy:
        echo.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)), connected(proxy) as connection:
            echoed(connection)


def test_faults_can_follow_each_other_under_load(proxy: FaultProxy) -> None:
    """Whatever comes back is a prefix of what was sent, and after healing new connections work."""
    changes: list[Callable[[], None]] = [
        lambda: proxy.latency(0.01),
        lambda: proxy.slice(100, 0.0),
        proxy.reset,
        proxy.blackhole,
        proxy.refuse,
    ]
    for change in changes:
        sent = TEXT * 20
        with contextlib.suppress(OSError), connected(proxy) as connection:
            connection.settimeout(BRIEF)
            sender = threading.Thread(target=_send, args=(connection, sent), daemon=True)
            sender.start()
            got = b""
            try:
                change()
                while len(got) < len(sent):
                    more = connection.recv(65536)
                    if not more:
                        break
                    got += more
            finally:
                assert sent.startswith(got)
                connection.shutdown(socket.SHUT_RDWR)
                sender.join(WAIT)
    proxy.heal()
    with connected(proxy) as connection:
        assert echoed(connection) == TEXT


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)


def test_url_leads_through_the_proxy_and_keeps_its_credentials(proxy: FaultProxy) -> None:
    url = "postgresql://someone:secret@db.example:5432/name?sslmode=disable"
    assert proxy.through(url) == f"postgresql://someone:secret@{HOST}:{proxy.port}/name?sslmode=disable"
    assert proxy.through("nats://db.example:4222") == f"nats://{HOST}:{proxy.port}"
