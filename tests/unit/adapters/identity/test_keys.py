import asyncio
import threading
from typing import Any

import anyio
import pytest
from live_stream import until

from fulcrum_adapters.identity import AnonymousVerifier, ApiKeyVerifier, IdentityChain, PrincipalCache
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import digest, format_key
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import ApiKey, Credentials

SECRET = "A1b2C3d4" * 5
ASK = Credentials(f"Bearer {format_key('k1', SECRET)}")
SECOND = 1_000_000_000

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Counting(MemoryKeys):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.hold: threading.Event | None = None
        self.reached = threading.Event()

    def get(self, key_id: str) -> ApiKey | None:
        self.asked += 1
        found = super().get(key_id)
        if self.hold is not None:
            self.reached.set()
            assert self.hold.wait(10)
        return found


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> int:
        return int(self.seconds * SECOND)


def made(clock: Clock, **changes: Any) -> tuple[Counting, ApiKeyVerifier]:
    keys = Counting()
    fields: dict[str, Any] = {"id": "k1", "tenant": "t", "agent": "ana", "name": "n", "roles": (), "scopes": ()}
    fields.update({"created_at": 1, "digest": digest(SECRET)}, **changes)
    keys.add(ApiKey(**fields))
    return keys, ApiKeyVerifier(keys, cache=PrincipalCache(monotonic=clock.monotonic), now=clock.now)


async def test_a_key_is_asked_for_once_a_minute() -> None:
    clock = Clock()
    keys, verifier = made(clock)
    for _ in range(3):
        await verifier.verify(ASK)
    assert keys.asked == 1
    clock.seconds += 60
    await verifier.verify(ASK)
    assert keys.asked == 2


async def test_an_unknown_key_is_asked_for_every_time() -> None:
    keys, verifier = made(Clock())
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await verifier.verify(Credentials(f"Bearer {format_key('k9', SECRET)}"))
    assert keys.asked == 3


async def test_a_revoked_key_is_refused_once_forgotten() -> None:
    clock = Clock()
    keys, verifier = made(clock)
    await verifier.verify(ASK)
    keys.revoke("t", "k1", clock.now())
    verifier.forget()
    with pytest.raises(Unauthenticated):
        await verifier.verify(ASK)


async def test_a_look_up_that_began_before_the_revocation_is_not_remembered() -> None:
    keys, verifier = made(Clock())
    keys.hold = threading.Event()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(verifier.verify, ASK)
            await anyio.to_thread.run_sync(keys.reached.wait)
            keys.revoke("t", "k1", 1)
            verifier.forget()
            keys.hold.set()
    keys.hold = None
    with pytest.raises(Unauthenticated):
        await verifier.verify(ASK)


async def test_a_key_ends_to_the_second_even_when_remembered() -> None:
    clock = Clock()
    _, verifier = made(clock, expires_at=110 * SECOND)
    await verifier.verify(ASK)
    clock.seconds = 110.0
    with pytest.raises(Unauthenticated):
        await verifier.verify(ASK)


async def test_the_cache_is_bounded_and_holds_no_token() -> None:
    cache = PrincipalCache(most=2)
    for number in range(5):
        cache.put(f"token-{number}", Principal("t", "a", "k"), 9.0, 0)
    assert [cache.get(f"token-{number}") is not None for number in range(5)] == [False, False, False, True, True]
    assert "token-" not in repr(cache._found)


async def test_anonymous_is_for_this_machine_only() -> None:
    verifier = AnonymousVerifier("reader")
    principal = await verifier.verify(Credentials(loopback=True))
    assert (principal.tenant, principal.agent, principal.roles) == ("default", "anonymous", ("reader",))
    assert principal.scopes == {"tool:call"}
    for credentials in (
        Credentials(),
        Credentials(loopback=True, forwarded=True),
        Credentials("Bearer x", loopback=True),
        Credentials(api_key="", loopback=True),
    ):
        with pytest.raises(Unauthenticated):
            await verifier.verify(credentials)


async def test_a_refused_key_never_becomes_anonymous() -> None:
    _, keys = made(Clock())
    chain = IdentityChain(keys, anonymous=AnonymousVerifier("reader"), forget=keys.forget)
    assert (await chain.verify(Credentials(loopback=True))).agent == "anonymous"
    for credentials in (Credentials("Bearer wrong", loopback=True), Credentials(api_key="", loopback=True)):
        with pytest.raises(Unauthenticated):
            await chain.verify(credentials)


async def test_made_up_keys_hold_up_nothing_else_while_the_store_hangs() -> None:
    keys, verifier = made(Clock())
    keys.hold = threading.Event()
    async with anyio.create_task_group() as asking:
        for number in range(100):
            asking.start_soon(verifier.verify, Credentials(f"Bearer {format_key(f'x{number}', SECRET)}"))
        with anyio.fail_after(5):
            await until(keys.reached.is_set, "the store is asked")
            await asyncio.to_thread(lambda: None)  # as those do who keep the ledger, carry records and follow changes
        asking.cancel_scope.cancel()
        keys.hold.set()
