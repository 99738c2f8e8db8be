"""What may befall the ledger's server: nobody is admitted without a hold, nobody waits, and it is right again."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from servers.proxy import FaultProxy
from servers.valkey import ValkeyServer
from stalls import Stalls

from fulcrum_adapters.redis import RedisConfig, RedisHistory, RedisLedger, RedisStore
from fulcrum_mcp.core.books import Books, Past, Place, Spent, book_of
from fulcrum_mcp.core.budget import Amounts, Budget, Match, Operation, Release, Reserve, Reserved, Scope
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

LIMIT = 400
EVER = Budget("ever", "t", "ever", Scope("global"), {"calls": LIMIT}, "infinite")
PLACE = Place("t", "ever", "g", 0)
WITHIN = 60.0
PATIENT = 5.0
"""Seconds for an answer where none fails: a slow machine is no fault."""


class Gateway:
    """Asks for one call after the other, as a journal does; what it was told is what the store knows."""

    def __init__(self, url: str, config: RedisConfig | None = None, stalls: Stalls | None = None) -> None:
        self.store = RedisStore(config or RedisConfig(url, timeout=PATIENT))
        self.stalls = stalls
        self.ledger = RedisLedger(self.store)
        self.admitted: set[str] = set()
        self.owed: list[Operation] = []
        self.asked = self.failed = self.refused = self.answered = 0
        self.faults: list[str] = []
        self.longest = 0.0
        """Seconds of the longest step, without stalls."""
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.broken: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                with self.lock:
                    self.step()
                time.sleep(0.002)  # the others' turn at the lock
        except BaseException as fault:  # noqa: BLE001 - shown by the test
            self.broken = fault

    def step(self) -> None:
        self.asked += 1
        call, at, began = f"c{self.asked}", time.time_ns(), time.monotonic()
        reserve = Reserve(call, 0, "t", "w1", (Match(EVER, "g"),), Amounts(), at, 90)
        try:
            outcome = self.ledger.apply([*self.owed, reserve])[-1]
        except Unavailable as fault:
            self.failed += 1
            self.faults.append(str(fault))
            if fault.doubtful:
                self.owed.append(Release(call, 0, at))
        else:
            self.owed.clear()
            self.answered += 1
            if isinstance(outcome, Reserved) and not outcome.repeated:
                self.admitted.add(call)
            else:
                self.refused += 1
        ended = time.monotonic()
        if ended - began > self.longest:
            self.longest = max(self.longest, self.stalls.own(began, ended) if self.stalls else ended - began)

    def recover(self) -> bool:
        """What a gateway's rebuilder does, as soon as the server answers."""
        with self.lock:
            try:
                run, believed = self.ledger.epoch()
                if not believed:
                    at = time.time_ns()
                    spent = (Spent(PLACE, Amounts(calls=len(self.admitted))),)
                    return self.ledger.rebuild(run, book_of(Books(at, spent), [EVER]), Past(), at)
            except Unavailable:
                return False
            return not self.owed or self.failed == 0


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def more(gateway: Gateway, count: str, what: str, by: int = 3) -> None:
    """Wait until a count of the gateway has grown so much."""
    met = getattr(gateway, count)

    def grown() -> bool:
        assert gateway.broken is None, f"{what}: {gateway.broken!r}"
        return bool(getattr(gateway, count) >= met + by)

    until(grown, what)


@dataclass
class Rig:
    server: ValkeyServer
    proxy: FaultProxy
    gateway: Gateway

    def tell(self, *words: str) -> Any:
        client = redis.Redis.from_url(self.server.url)
        try:
            run: Any = client.execute_command
            return run(*words)
        finally:
            client.close()


@pytest.fixture
def rig(own_valkey: ValkeyServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Its gateway waits as long as one does, or `PATIENT` seconds where the fixture is asked so."""
    with FaultProxy(own_valkey.port) as proxy, Stalls(lambda: [os.getpid()], tmp_path) as stalls:
        url = proxy.through(own_valkey.url)
        gateway = Gateway(url, None if hasattr(request, "param") else RedisConfig(url), stalls)
        until(gateway.recover, "the first books are not made")
        gateway.thread.start()
        yield Rig(own_valkey, proxy, gateway)
        gateway.stopping.set()
        gateway.thread.join(WITHIN)
        gateway.store.close()


def busy(rig: Rig) -> None:
    client = redis.Redis.from_url(rig.server.url, socket_timeout=0.2)
    rig.tell("CONFIG", "SET", "busy-reply-threshold", "100")
    with pytest.raises(redis.TimeoutError):
        client.eval("while true do end", 0)
    client.close()


Act = Callable[[Rig], object]
FAULTS: dict[str, tuple[Act, Act]] = {
    "stopped": (lambda r: r.server.stop(), lambda r: r.server.start()),
    "killed, its AOF kept": (lambda r: r.server.kill(), lambda r: r.server.start()),
    "paused": (lambda r: r.server.pause(), lambda r: r.server.resume()),
    "slow by 5 s": (lambda r: r.proxy.latency(5.0, "down"), lambda r: r.proxy.heal()),
    "read-only": (lambda r: r.tell("REPLICAOF", "127.0.0.1", "1"), lambda r: r.tell("REPLICAOF", "NO", "ONE")),
    "flushed": (lambda r: r.tell("FLUSHALL"), lambda _: None),
    "restarted empty": (lambda r: r.server.restart(empty=True), lambda _: None),
    "without memory": (
        lambda r: r.tell("CONFIG", "SET", "maxmemory", "1"),
        lambda r: r.tell("CONFIG", "SET", "maxmemory", "0"),
    ),
    "busy": (busy, lambda r: r.tell("SCRIPT", "KILL")),
    "cut off": (lambda r: r.proxy.blackhole(), lambda r: r.proxy.heal()),
    "answers lost": (lambda r: r.proxy.blackhole("down"), lambda r: r.proxy.heal()),
    "reset": (lambda r: r.proxy.reset(), lambda r: r.proxy.heal()),
    "damaged": (lambda r: r.proxy.corrupt(700), lambda r: r.proxy.heal()),
    "refusing": (lambda r: r.proxy.refuse(), lambda r: r.proxy.heal()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_admits_without_a_hold_or_keeps_anybody_waiting(rig: Rig, fault: str) -> None:
    harm, heal = FAULTS[fault]
    gateway = rig.gateway
    for rounds in range(2):
        more(gateway, "asked", "the gateway stands still", 15 + 7 * rounds)
        harm(rig)
        more(gateway, "failed", f"{fault} has not been met")
        heal(rig)
        until(gateway.recover, f"{fault}: the books were not rebuilt")
        more(gateway, "answered", "not answered again")
    until(lambda: gateway.refused > 5, "the budget is never used up")
    gateway.stopping.set()
    gateway.thread.join(WITHIN)
    assert gateway.broken is None, gateway.faults[-5:]
    assert len(gateway.admitted) == LIMIT, "one more is overspent, one fewer is leaked"
    (usage,) = gateway.ledger.usage([EVER], time.time_ns())
    assert usage.committed["calls"] + usage.reserved["calls"] == LIMIT
    assert gateway.longest < 1.0, gateway.faults[-5:]


patient = pytest.mark.parametrize("rig", [PATIENT], indirect=True, ids=["patient"])


@patient
def test_scripts_that_were_flushed_are_loaded_again_unnoticed(rig: Rig) -> None:
    for _ in range(20):
        rig.tell("SCRIPT", "FLUSH")  # also between the loading of the script and its use
        more(rig.gateway, "asked", "the gateway stands still")
    rig.gateway.stopping.set()
    rig.gateway.thread.join(WITHIN)
    assert rig.gateway.faults == []
    assert len(rig.gateway.admitted) == rig.gateway.asked - rig.gateway.refused


@patient
def test_reading_an_emptied_server_is_refused_rather_than_believed(rig: Rig) -> None:
    history = RedisHistory(rig.gateway.store)
    history.taint("t", "envelope:e", ["pii"], time.time_ns())
    rig.gateway.stopping.set()
    rig.gateway.thread.join(WITHIN)
    rig.tell("FLUSHALL")
    ledger = rig.gateway.ledger
    for ask in (
        lambda: history.read("t", "envelope:e"),
        lambda: ledger.peek([Match(EVER, "g")], time.time_ns()),
        lambda: ledger.usage([EVER], time.time_ns()),
        lambda: ledger.open("w1"),
    ):
        with pytest.raises(Unavailable, match="being rebuilt") as told:
            ask()
        assert not told.value.doubtful


def test_ledger_is_bound_to_the_run_it_was_told_of(own_valkey: ValkeyServer) -> None:
    """A gateway that has not declared itself for a new run must not reserve there, whoever has rebuilt it."""
    one, other = Gateway(own_valkey.url), Gateway(own_valkey.url)
    assert one.recover()
    assert other.recover()
    own_valkey.restart()
    until(other.recover, "not rebuilt")
    other.step()
    for _ in range(3):
        one.step()
    assert not one.admitted
    assert one.failed == 3
    assert one.recover()
    one.step()
    assert one.admitted
    for gateway in (one, other):
        gateway.store.close()
