"""An attacker who may write to the server that Redis' part is played by; and a neighbour who does so by mistake."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from contract.ledgers import CALLS, NOON, apply, balance, reserve
from contract.redis_books import begin

from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.redis import CachedKeys, RedisConfig, RedisHistory, RedisLedger, RedisStore
from fulcrum_adapters.redis.server import RedisServer
from fulcrum_mcp.core.account import Book
from fulcrum_mcp.core.books import Past
from fulcrum_mcp.core.budget import Expire, Reserved
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey

pytestmark = [pytest.mark.service, pytest.mark.parts]

NOW = 1_795_521_600 * 1_000_000_000
SECRET = b"what all gateways share, no other"
KEY = ApiKey("k1", "t", "bot", "bot's", ("r",), ("tool:call",), NOW, digest="ab" * 32)
FORGED = replace(KEY, tenant="victim", scopes=("platform",), digest=hashlib.sha256(b"mine").hexdigest())
PLACE = "fulcrum:key:2:k1"


@pytest.fixture
def server(valkey_url: str) -> Iterator[RedisServer]:
    server = RedisServer(RedisConfig(valkey_url))
    yield server
    server.close()


def _cached(server: RedisServer, *keys: ApiKey, secret: bytes = SECRET) -> CachedKeys:
    store = MemoryKeys()
    for key in keys:
        store.add(key)
    return CachedKeys(store, server, lambda: 1, secret, clock=lambda: NOW)


def _entry(key: ApiKey) -> bytes:
    return msgspec.msgpack.encode([1, NOW, key])


@pytest.mark.parametrize("seal", [b"", bytes(32), hashlib.sha256(_entry(FORGED)).digest()])
def test_key_that_somebody_wrote_into_redis_opens_nothing(server: RedisServer, seal: bytes) -> None:
    server.command("SET", PLACE, seal + _entry(FORGED))
    assert _cached(server).get("k1") is None
    assert _cached(server, KEY).get("k1") == KEY


def test_entry_of_another_installation_is_not_believed(server: RedisServer) -> None:
    _cached(server, FORGED, secret=b"of another installation").get("k1")
    assert server.command("GET", PLACE) is not None
    assert _cached(server, KEY).get("k1") == KEY


def test_entry_whose_scopes_were_changed_is_not_believed(server: RedisServer) -> None:
    _cached(server, KEY).get("k1")
    told = server.command("GET", PLACE)
    assert b"tool:call" in told
    server.command("SET", PLACE, told.replace(b"tool:call", b"key:write"))
    assert _cached(server, KEY).get("k1") == KEY


def test_sealed_entry_is_believed(server: RedisServer) -> None:
    """Else the tests above would show nothing."""
    _cached(server, KEY).get("k1")
    assert _cached(server).get("k1") == KEY


OURS, THEIRS = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"
REMEDY = r"books of another installation under the prefix .fulcrum:.*set another redis\.prefix"


def _books(url: str, installation: str, prefix: str = "fulcrum:") -> RedisStore:
    return RedisStore(RedisConfig(url, prefix=prefix, timeout=2.0), installation)


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_two_installations_on_one_prefix_share_no_books_and_the_second_is_told(url: str) -> None:
    ours, theirs = _books(url, OURS), _books(url, THEIRS)
    assert theirs.foreign() is None, "nobody's yet"
    begin(ours)
    ledger, second = RedisLedger(ours), RedisLedger(theirs)
    assert isinstance(apply(ledger, reserve("a", CALLS)), Reserved)
    run, _ = ledger.epoch()
    assert ours.foreign() is None
    assert re.search(REMEDY, str(theirs.foreign()))
    history = RedisHistory(theirs, clock=lambda: NOON)
    for use in (
        lambda: second.apply([reserve("b", CALLS)]),
        lambda: second.apply([Expire(NOON)]),
        lambda: second.usage([CALLS], NOON),
        lambda: second.open("w1"),
        second.epoch,
        lambda: second.rebuild(run, Book(), Past(), NOON),
        lambda: history.read("t", "key:k"),
        lambda: history.taint("t", "key:k", ["pii"], NOON),
    ):
        with pytest.raises(Unavailable, match=REMEDY) as caught:
            use()
        assert not caught.value.doubtful
    assert balance(ledger, CALLS) == {"calls": (0, 1)}
    ours.close()
    theirs.close()


def test_books_of_another_installation_are_not_rebuilt_after_their_server_came_back(url: str) -> None:
    """Their run is over, and their gateways are about to make them anew: nobody else may be faster."""
    ours, theirs = _books(url, OURS), _books(url, THEIRS)
    begin(ours)
    ours.server.command("HSET", "fulcrum:epoch", "run", "the one before")
    run, believed = RedisLedger(ours).epoch()
    assert not believed
    steps: list[tuple[Any, ...]] = [("stage", run, "g", [], "1000"), ("flip", run, "g", 1, "1", "1000", "0")]
    for step in steps:
        with pytest.raises(Unavailable, match=REMEDY):
            theirs.rebuild(*step)
    begin(ours)
    assert RedisLedger(ours).epoch() == (run, True)
    ours.close()
    theirs.close()


def test_each_of_two_installations_with_a_prefix_of_its_own_has_books_of_its_own(url: str) -> None:
    ours, theirs = _books(url, OURS), _books(url, THEIRS, "other:")
    for store in (ours, theirs):
        begin(store)
        assert isinstance(apply(RedisLedger(store), reserve("a", CALLS)), Reserved)
        assert balance(RedisLedger(store), CALLS) == {"calls": (0, 1)}
        store.close()


def test_books_of_a_new_installation_begin_once_the_old_ones_are_removed(url: str) -> None:
    ours, theirs = _books(url, OURS), _books(url, THEIRS)
    begin(ours)
    apply(RedisLedger(ours), reserve("a", CALLS))
    assert theirs.foreign() is not None
    for key in ours.server.command("KEYS", "fulcrum:*"):
        ours.server.command("DEL", key)
    begin(theirs)
    assert balance(RedisLedger(theirs), CALLS) == {"calls": (0, 0)}
    with pytest.raises(Unavailable, match=REMEDY):
        RedisLedger(ours).open("w1")
    ours.close()
    theirs.close()


def test_books_that_say_nothing_of_whose_they_are_are_made_anew(url: str) -> None:
    ours = _books(url, OURS)
    begin(ours)
    apply(RedisLedger(ours), reserve("a", CALLS))
    ours.server.command("HDEL", "fulcrum:epoch", "installation")
    with pytest.raises(Unavailable, match="rebuilt"):
        RedisLedger(ours).open("w1")
    assert not RedisLedger(ours).epoch()[1]
    begin(ours)
    assert balance(RedisLedger(ours), CALLS) == {"calls": (0, 0)}
    ours.close()
