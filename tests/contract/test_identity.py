"""IdentityVerifier: what every adapter promises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulcrum_adapters.identity import ApiKeyVerifier, IdentityChain
from fulcrum_adapters.memory.identity import MemoryIdentity
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_adapters.sqlite.keys import SqliteKeys
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import digest, format_key
from fulcrum_mcp.errors import Unauthenticated
from fulcrum_mcp.ports import ApiKey, Credentials, IdentityVerifier, KeyRepository

SECRET = "A1b2C3d4" * 5
TOKEN = format_key("k1", SECRET)
ANA = Principal("t", "ana", "k1", ("reader",), frozenset({"tool:call"}))

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stored(**changes: Any) -> ApiKey:
    fields: dict[str, Any] = {"id": "k1", "tenant": "t", "agent": "ana", "name": "n", "roles": ("reader",)}
    fields |= {"scopes": ("tool:call",), "created_at": 1, "digest": digest(SECRET)}
    return ApiKey(**(fields | changes))


@pytest.fixture(params=["memory keys", "sqlite keys", "chain", "memory"])
def verifier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IdentityVerifier]:
    if request.param == "memory":
        yield MemoryIdentity({TOKEN: ANA})
        return
    database = ControlDatabase(tmp_path / "f.db")
    keys: KeyRepository = SqliteKeys(database) if request.param == "sqlite keys" else MemoryKeys()
    keys.add(stored())
    verifier = ApiKeyVerifier(keys)
    yield IdentityChain(verifier) if request.param == "chain" else verifier
    database.close()


@pytest.mark.parametrize(
    "credentials", [Credentials(f"Bearer {TOKEN}"), Credentials(api_key=TOKEN), Credentials(f"Bearer {TOKEN}", TOKEN)]
)
async def test_a_known_key_is_its_principal(verifier: IdentityVerifier, credentials: Credentials) -> None:
    assert await verifier.verify(credentials) == ANA
    assert await verifier.verify(credentials) == ANA


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        Credentials(""),
        Credentials("Bearer "),
        Credentials("Bearer"),
        Credentials(api_key=""),
        Credentials(f"Basic {TOKEN}"),
        Credentials(TOKEN[:-1]),
        Credentials(f"Bearer {TOKEN[:-1]}x"),
        Credentials(f"Bearer {TOKEN}x"),
        Credentials(f"Bearer {TOKEN.upper()}"),
        Credentials(f"Bearer {TOKEN}\x00"),
        Credentials(f"Bearer {format_key('k2', SECRET)}"),
        Credentials(f"Bearer {digest(SECRET)}"),
        Credentials(f"Bearer {format_key('k1', digest(SECRET))}"),
        Credentials(api_key="\udc80" * 40),
        Credentials("Bearer " + "x" * 100_000),
        Credentials(loopback=True),
    ],
)
async def test_anything_else_is_refused_without_quoting_it(
    verifier: IdentityVerifier, credentials: Credentials
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(credentials)
    assert SECRET not in str(caught.value)
    assert digest(SECRET) not in str(caught.value)
