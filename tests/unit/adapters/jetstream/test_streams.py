"""The streams are made as promised; what is there already is compared, never weakened."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from stream_rigs import nats_config

from fulcrum_adapters.jetstream import Connection, check_streams, ensure_streams
from fulcrum_adapters.jetstream.streams import STREAMS
from fulcrum_mcp.errors import Invalid

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    made = Connection(nats_config(nats_url))
    made.start()
    await made.ready()
    yield made
    await made.close()


async def test_every_stream_is_made_with_the_settings_that_are_promised(connection: Connection) -> None:
    checked = await ensure_streams(connection)
    assert [*checked.warnings, *checked.refusals] == []
    for name, promised in STREAMS.items():
        found = (await connection.api(f"STREAM.INFO.{name}"))["config"]
        assert {key: found.get(key, 0) for key in promised} == promised
        assert found["storage"] == "file"
    assert await ensure_streams(connection) == ([], [])
    assert await check_streams(connection, checked, stream_mode=True) == []


async def test_a_stream_that_is_there_stays_as_it_is_and_the_difference_is_said(connection: Connection) -> None:
    other = {"name": "FULCRUM_AUDIT", "subjects": ["fulcrum.audit.*"], "storage": "memory", "max_age": 60_000_000_000}
    await connection.api("STREAM.CREATE.FULCRUM_AUDIT", other)
    checked = await ensure_streams(connection)
    said = " ".join(checked.warnings)
    assert all(word in said for word in ("storage is 'memory'", "retention is 'limits'", "max_age", "discard"))
    assert (await connection.api("STREAM.INFO.FULCRUM_AUDIT"))["config"]["storage"] == "memory"
    assert await check_streams(connection, checked, stream_mode=False) == checked.warnings
    with pytest.raises(Invalid, match="storage is 'memory'"):
        await check_streams(connection, checked, stream_mode=True)


async def test_more_room_than_promised_is_no_difference(connection: Connection) -> None:
    wanted = {"name": "FULCRUM_AUDIT", "storage": "file", "num_replicas": 1, **STREAMS["FULCRUM_AUDIT"]}
    await connection.api("STREAM.CREATE.FULCRUM_AUDIT", {**wanted, "max_bytes": 1 << 20})
    assert await ensure_streams(connection) == ([], [])


async def test_stream_durability_needs_the_word_of_the_operator(nats_url: str) -> None:
    connection = Connection(replace(nats_config(nats_url), sync_always=False))
    connection.start()
    await connection.ready()
    checked = await ensure_streams(connection)
    (warning,) = await check_streams(connection, checked, stream_mode=False)
    assert "sync_interval: always" in warning
    with pytest.raises(Invalid, match=r"nats\.sync_always = true"):
        await check_streams(connection, checked, stream_mode=True)
    await connection.close()


async def test_a_server_without_room_for_the_streams_says_what_to_do(nats_url: str) -> None:
    connection = Connection(replace(nats_config(nats_url), max_bytes=1 << 40))
    connection.start()
    await connection.ready()
    with pytest.raises(Invalid, match="max_file_store"):
        await ensure_streams(connection)
    await connection.close()
