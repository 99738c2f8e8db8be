from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from servers.process import free_port

from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.redis import CachedKeys, PolicyCache, RedisConfig
from fulcrum_adapters.redis.server import RedisServer
from fulcrum_mcp.core.policy import PolicyModule, PolicySource, source_digest
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import ApiKey

pytestmark = [pytest.mark.service, pytest.mark.parts]

SECOND = 1_000_000_000
START = 1_795_521_600 * SECOND
SECRET = b"what all gateways share, no other"
KEY = ApiKey("k1", "t", "bot", "bot's", ("r",), ("tool:call",), START, digest="ab" * 32)


class Keys(MemoryKeys):
    """Counts, and fails when it is down."""

    asked = 0
    down = False

    def get(self, key_id: str) -> ApiKey | None:
        self.asked += 1
        if self.down:
            raise Unavailable("postgres: down")
        return super().get(key_id)


@dataclass
class Rig:
    server: RedisServer
    keys: Keys = field(default_factory=Keys)
    revision: int = 1
    now: int = START

    def cached(self) -> CachedKeys:
        return CachedKeys(self.keys, self.server, lambda: self.revision, SECRET, clock=lambda: self.now)


@pytest.fixture
def rig(valkey_url: str) -> Iterator[Rig]:
    server = RedisServer(RedisConfig(valkey_url))
    found = Rig(server)
    found.keys.add(KEY)
    yield found
    server.close()


def test_key_is_asked_for_once_by_all_gateways(rig: Rig) -> None:
    assert [rig.cached().get("k1") for _ in range(3)] == [KEY] * 3
    assert rig.keys.asked == 1


def test_miss_is_never_cached(rig: Rig) -> None:
    cached = rig.cached()
    assert cached.get("k2") is None
    cached.add(replace(KEY, id="k2"))
    found = cached.get("k2")
    assert found is not None
    assert found.id == "k2"


def test_entry_counts_for_its_revision_only(rig: Rig) -> None:
    rig.cached().get("k1")
    rig.keys.revoke("t", "k1", START)
    rig.revision = 2
    found = rig.cached().get("k1")
    assert found is not None
    assert found.revoked_at == START


def test_answer_that_was_overtaken_by_a_change_is_not_kept_for_the_new_revision(rig: Rig) -> None:
    class Overtaken(Keys):
        def get(self, key_id: str) -> ApiKey | None:
            rig.revision = 2  # the change comes while the store is asked
            return replace(KEY, id=key_id)

    CachedKeys(Overtaken(), rig.server, lambda: rig.revision, SECRET, clock=lambda: rig.now).get("k1")
    rig.cached().get("k1")
    assert rig.keys.asked == 1


def test_entry_counts_for_a_minute_whatever_the_server_keeps(rig: Rig) -> None:
    rig.cached().get("k1")
    for now, asked in ((START + 59 * SECOND, 1), (START + 60 * SECOND, 2)):
        rig.now = now
        rig.cached().get("k1")
        assert rig.keys.asked == asked
    life = rig.server.command("PTTL", "fulcrum:key:2:k1")
    assert 0 < life <= 60_000


def test_revoked_key_is_dropped_at_once(rig: Rig) -> None:
    cached = rig.cached()
    cached.get("k1")
    assert cached.revoke("t", "k1", START).revoked_at == START
    found = cached.get("k1")
    assert found is not None
    assert found.revoked_at == START
    assert [key.id for key in cached.list("t")] == ["k1"]


def test_store_that_is_down_is_not_missed_while_the_entry_counts(rig: Rig) -> None:
    rig.cached().get("k1")
    rig.keys.down = True
    assert rig.cached().get("k1") == KEY
    rig.now = START + 61 * SECOND
    with pytest.raises(Unavailable, match="postgres"):
        rig.cached().get("k1")


@pytest.mark.parametrize("planted", [b"", b"\xc1", b"\x93\x01\x02\x03", b"not a key at all"])
def test_entry_that_cannot_be_read_is_as_none(rig: Rig, planted: bytes) -> None:
    rig.server.command("SET", "fulcrum:key:2:k1", planted)
    assert rig.cached().get("k1") == KEY


def test_entry_of_another_key_is_not_taken(rig: Rig) -> None:
    rig.keys.add(replace(KEY, id="k2", scopes=("admin",)))
    rig.cached().get("k2")
    rig.server.command("RENAME", "fulcrum:key:2:k2", "fulcrum:key:2:k1")
    assert rig.cached().get("k1") == KEY


def test_cache_that_is_down_is_as_none() -> None:
    down = RedisServer(RedisConfig(f"redis://127.0.0.1:{free_port()}"))
    rig = Rig(down)
    rig.keys.add(KEY)
    assert rig.cached().get("k1") == KEY
    assert rig.cached().revoke("t", "k1", START).revoked_at == START
    source = PolicySource((PolicyModule("a.rego", "package a"),))
    PolicyCache(down).put(source)
    assert PolicyCache(down).get(source_digest(source)) is None


def test_policies_are_found_by_their_digest_and_only_if_they_have_it(rig: Rig) -> None:
    one = PolicySource((PolicyModule("a.rego", "package a"),), {"n": [1, {"x": None}]}, "one")
    other = PolicySource((PolicyModule("b.rego", "package b"),))
    cache = PolicyCache(rig.server)
    assert cache.get(source_digest(one)) is None
    cache.put(one)
    assert cache.get(source_digest(one)) == one
    cache.put(other)
    name = "fulcrum:policy:64:"
    rig.server.command("RENAME", f"{name}{source_digest(other)}", f"{name}{source_digest(one)}")
    assert cache.get(source_digest(one)) is None
