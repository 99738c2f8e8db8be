"""An attacker who may write to the server that Redis' part is played by."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.redis import CachedKeys, RedisConfig
from fulcrum_adapters.redis.server import RedisServer
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
