"""The stores that no call waits for fail: calls go on, records wait in the spool, and all are stored in the end."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from embedded_rig import Embedded, open_embedded, processor_of
from governed_processes import until
from kill_checker import faults
from store_harm import locked, moved_away, noise, replaced_by_nothing

from fulcrum_adapters.sqlite.control import ControlDatabase
from fulcrum_mcp.composition.audit import open_reader

pytestmark = [pytest.mark.service, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Embedded]:
    monkeypatch.setattr(ControlDatabase.__init__, "__kwdefaults__", {"busy_timeout": 0.2})
    async with open_embedded(tmp_path) as opened:
        assert await opened.call() == ""
        yield opened
        await opened.serves_again()
        assert opened.blind == 0
    evidence = opened.evidence()
    assert faults(evidence) == []
    assert len(evidence.answered) > 20


def stored(gateway: Embedded) -> int:
    """Records in the store."""
    reader = open_reader(gateway.data)
    try:
        return reader.counts(None)["records"]
    finally:
        reader.close()


def spooled(gateway: Embedded) -> int:
    """Bytes in the spool."""
    return sum(path.stat().st_size for path in (gateway.data / "spool").rglob("*.seg"))


async def catches_up(gateway: Embedded) -> None:
    """The processor has everything, by itself."""
    sent = len(gateway.answered)

    async def caught_up() -> bool:
        return await asyncio.to_thread(stored, gateway) >= 2 * sent

    await until(caught_up, "the processor has stored everything")


async def goes_on(gateway: Embedded, calls: int = 20) -> None:
    """Calls are answered as if nothing were the matter."""
    before = gateway.forwarded
    for _ in range(calls):
        began = time.monotonic()
        assert await gateway.call() == ""
        assert gateway.stalls.own(began, time.monotonic()) < 1
    assert gateway.forwarded == before + calls


@pytest.mark.parametrize("harm", [locked, moved_away, replaced_by_nothing, noise])
async def test_calls_go_on_without_the_audit_store_and_it_catches_up(
    gateway: Embedded, harm: Callable[[Path], AbstractContextManager[None]]
) -> None:
    await catches_up(gateway)
    before = spooled(gateway)
    with harm(gateway.data / "audit.db"):
        await goes_on(gateway)
        assert spooled(gateway) > before
    await catches_up(gateway)


async def test_an_audit_store_that_was_deleted_is_made_anew_from_the_spool(gateway: Embedded) -> None:
    await catches_up(gateway)
    remove(gateway.data / "audit.db")
    await goes_on(gateway)
    await catches_up(gateway)


async def test_an_audit_store_that_is_damaged_while_in_use_catches_up_once_repaired(gateway: Embedded) -> None:
    """The processor is between two turns: what it keeps open is given back first, as a restart would."""
    await catches_up(gateway)
    processor = processor_of(gateway)
    store = gateway.data / "audit.db"
    with processor._work:
        processor._let_go()
        good = store.read_bytes()
        store.write_bytes(os.urandom(len(good)))
    await goes_on(gateway)
    with processor._work:
        processor._forget()
        store.write_bytes(good)
    await catches_up(gateway)


@pytest.mark.parametrize("harm", [moved_away, replaced_by_nothing, noise])
async def test_calls_go_on_without_the_control_plane_which_answers_503(
    gateway: Embedded, harm: Callable[[Path], AbstractContextManager[None]]
) -> None:
    assert (await gateway.get("/api/v1/keys")).status == 200
    before = gateway.server.plane.holder.current
    with harm(gateway.data / "fulcrum.db"):
        await goes_on(gateway)
        reply = await gateway.get("/api/v1/keys")
        assert reply.status == 503
        assert "fulcrum.db" in reply.body.decode()
        assert gateway.server.plane.holder.current is before
        reply = await gateway.get("/readyz")
        assert reply.status == 200
    await serves_keys(gateway)


async def test_calls_go_on_while_the_control_plane_is_locked(gateway: Embedded) -> None:
    headers = [(b"authorization", b"Bearer " + gateway.admin.encode())]
    wanted = {"name": "new", "agent": "new"}
    with locked(gateway.data / "fulcrum.db"):
        await goes_on(gateway)
        reply = await gateway.post("/api/v1/keys", wanted, headers)
        assert reply.status == 503
        assert "locked" in reply.body.decode()
    await serves_keys(gateway)
    assert (await gateway.post("/api/v1/keys", wanted, headers)).status == 201


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


async def serves_keys(gateway: Embedded) -> None:
    async def works() -> bool:
        return (await gateway.get("/api/v1/keys")).status == 200

    await until(works, "the control plane serves again", 30)


async def test_a_dead_neighbour_is_looked_after_while_the_control_plane_is_gone(
    gateway: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[float] = []
    monkeypatch.setattr("fulcrum_mcp.composition.gateway._SWEEP", 0.1)
    monkeypatch.setattr("fulcrum_mcp.composition.embedded.recover", lambda *_: swept.append(1))

    async def swept_again() -> bool:
        return len(swept) > 2

    with noise(gateway.data / "fulcrum.db"):
        assert (await gateway.get("/api/v1/keys")).status == 503
        swept.clear()
        await until(swept_again, "what dead processes left is finished")
        await goes_on(gateway)
