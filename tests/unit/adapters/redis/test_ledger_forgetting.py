"""The server stays small, and forgetting never reopens a window."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis
from contract.ledgers import CALLS, DAY, NOON, SECOND, apply, balance, commit, limited, release, reserve
from contract.redis_books import begin

from fulcrum_adapters.redis import RedisConfig, RedisHistory, RedisLedger, RedisStore
from fulcrum_mcp.core.budget import Amounts, Budget, Expire, Rate, Refused, Reserved, Scope
from fulcrum_mcp.core.window import window_at
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

RATED = Budget("rated", "t", "slow", Scope("agent"), rate=Rate(10, 60, 3))
ONE = limited(CALLS, calls=1)


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    opened = RedisStore(RedisConfig(url, timeout=2.0))
    yield opened
    opened.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def keys(store: RedisStore) -> list[bytes]:
    client = redis.Redis.from_url(store.config.url)
    try:
        return list(client.scan_iter())
    finally:
        client.close()


def test_every_key_expires(store: RedisStore) -> None:
    begin(store)
    ledger, history = RedisLedger(store), RedisHistory(store)
    forever = replace(CALLS, id="ever", period="infinite")
    ledger.apply([reserve("a", CALLS, forever, RATED), reserve("b", CALLS, ttl=10**12), commit("a"), release("z")])
    ledger.apply([reserve("c", forever), Expire(NOON + 61 * SECOND)])
    for subject in ("key:k", "envelope:e"):
        history.count("t", subject, "files__read", NOON)
        history.taint("t", subject, ["pii"], NOON)
    client = redis.Redis.from_url(store.config.url)
    lives = {key: client.pttl(key) for key in keys(store)}
    client.close()
    assert len(lives) >= 14
    assert [key for key, life in lives.items() if not isinstance(life, int) or life <= 0] == []


def test_window_that_had_ended_when_the_books_were_made_stays_shut(store: RedisStore) -> None:
    begin(store, NOON)
    ledger = RedisLedger(store)
    outcome = apply(ledger, reserve("late", ONE, at=NOON - DAY))
    assert isinstance(outcome, Refused)
    assert (outcome.action, outcome.left) == ("hard", 0)
    assert isinstance(apply(ledger, reserve("warned", replace(ONE, action="warn"), at=NOON - DAY)), Reserved)
    assert isinstance(apply(ledger, reserve("now", ONE, at=NOON)), Reserved)


def test_forgotten_window_is_refused_when_the_clock_goes_back(url: str) -> None:
    store = RedisStore(RedisConfig(url, timeout=2.0, keep=2))
    start = time.time_ns()
    begin(store, start - 5 * SECOND)
    ledger = RedisLedger(store)
    short = replace(ONE, period="1")
    ledger.apply([reserve("a", short, at=start), commit("a", at=start), reserve("b", RATED, at=start)])
    assert balance(ledger, short, start) == {"calls": (1, 0)}
    assert isinstance(apply(ledger, reserve("again", short, at=start)), Refused)

    def forgotten() -> bool:
        apply(ledger, Expire(time.time_ns()))
        return balance(ledger, short, start) == {"calls": (0, 0)}

    until(forgotten)
    assert isinstance(apply(ledger, reserve("late", short, at=start)), Refused)
    assert isinstance(apply(ledger, reserve("now", short, at=time.time_ns())), Reserved)
    store.close()


def test_window_lives_as_long_as_the_longer_of_two_that_begin_together(store: RedisStore) -> None:
    """Gateways with different files: one budget has two periods."""
    ledger, first = RedisLedger(store), window_at("month", "UTC", NOON).start + SECOND
    month, day = replace(CALLS, period="month"), replace(CALLS, period="day")
    client = redis.Redis.from_url(store.config.url)

    def life() -> int:
        (key,) = [key for key in keys(store) if b":a" in key]
        found = client.pttl(key)
        assert isinstance(found, int)
        return found

    begin(store, first)
    lives: list[int] = []
    for number, budget in enumerate((day, month, day, month)):
        assert isinstance(apply(ledger, reserve(f"c{number}", budget, at=first)), Reserved)
        lives.append(life())
    client.close()
    assert lives[0] < lives[1] - 20 * 86_400_000
    assert min(lives[2:]) > lives[1] - 60_000


def test_clock_that_jumps_far_ahead_for_a_while_does_not_take_todays_windows_with_it(store: RedisStore) -> None:
    begin(store)
    ledger = RedisLedger(store)
    ledger.apply([reserve("a", ONE), commit("a")])
    for number in range(10):
        ledger.apply([reserve(f"far{number}", ONE, at=NOON + 30_000 * DAY)])
    assert balance(ledger, ONE) == {"calls": (1, 0)}
    assert isinstance(apply(ledger, reserve("b", ONE, at=NOON + SECOND)), Refused)
    assert isinstance(apply(ledger, reserve("c", ONE, at=NOON + DAY)), Reserved)


def test_books_that_nobody_used_are_not_believed_and_can_be_made_again(url: str) -> None:
    """The server's clock may have forgotten a part of them meanwhile."""
    store = RedisStore(RedisConfig(url, timeout=2.0, keep=1))
    begin(store)
    ledger = RedisLedger(store)
    ledger.apply([reserve("a", ONE)])
    until(lambda: not ledger.epoch()[1])
    with pytest.raises(Unavailable, match="being rebuilt"):
        apply(ledger, reserve("b", ONE))
    begin(store)
    assert isinstance(apply(ledger, reserve("b", ONE)), Reserved)
    store.close()


def test_server_that_may_evict_keys_is_not_trusted(store: RedisStore) -> None:
    store.server.command("CONFIG", "SET", "maxmemory", "100mb")
    store.server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(Unavailable, match="set maxmemory-policy to noeviction"):
            RedisLedger(store).epoch()
    finally:
        store.server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        store.server.command("CONFIG", "SET", "maxmemory", "0")


def test_books_of_which_something_may_have_been_evicted_are_made_again(store: RedisStore) -> None:
    begin(store)
    ledger = RedisLedger(store)
    ledger.apply([reserve("a", ONE), commit("a")])
    client = redis.Redis.from_url(store.config.url)
    for number in range(100):
        client.set(f"stranger{number}", b"x" * 10_000, ex=5)
    client.config_set("maxmemory-policy", "volatile-ttl")
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 200_000)
    until(lambda: bool(client.set("stranger", b"x")) and client.info("stats")["evicted_keys"] > 0)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 0)
    client.close()
    with pytest.raises(Unavailable, match="being rebuilt"):
        apply(ledger, reserve("b", ONE))
    assert not ledger.epoch()[1]
    begin(store)
    assert isinstance(apply(ledger, reserve("b", ONE)), Reserved)


def test_keys_of_somebody_else_are_refused_and_nothing_is_written(store: RedisStore) -> None:
    begin(store)
    ledger = RedisLedger(store)
    ledger.apply([reserve("a", CALLS)])
    (account,) = [key for key in keys(store) if b":a1:t5:calls" in key]
    client = redis.Redis.from_url(store.config.url)
    client.delete(account)
    client.lpush(account.decode(), "x")
    client.close()
    with pytest.raises(Unavailable, match="holds other things"):
        ledger.apply([reserve("b", limited(replace(CALLS, id="other"), calls=9), CALLS)])
    assert ledger.open("w1") == [("a", 0)]
    assert balance(ledger, replace(CALLS, id="other")) == {"calls": (0, 0)}


def test_many_holds_expire_in_steps_that_keep_nobody_waiting(store: RedisStore) -> None:
    begin(store)
    ledger = RedisLedger(store)
    wide = limited(CALLS, calls=10_000)
    for start in range(0, 1_700, 425):
        ledger.apply([reserve(f"c{number}", wide, amounts=Amounts()) for number in range(start, start + 425)])
    outcome = apply(ledger, Expire(NOON + 61 * SECOND))
    assert outcome == replace(outcome, count=1_700, events=())  # type: ignore[arg-type]
    assert balance(ledger, wide) == {"calls": (1_700, 0)}
