"""The real event-processor on a real Postgres and a real NATS."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from archive_rig import call_drafts, hour_start
from processor_doubles import parcels_of
from processor_processes import SEAL, Processors, within
from psycopg import sql
from servers.nats import NatsServer
from servers.postgres import PostgresServer

from fulcrum_adapters.jetstream import Connection, JetStreamAuditStream, JetStreamConfig, ensure_streams
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import Parcel

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(240)]


_END_LEADER = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fulcrum-leader'"


def blocks(
    writer: str, number: int, tenants: Sequence[str] = ("default", "acme"), at: int | None = None
) -> list[Parcel]:
    """Group commits of two calls each; `at`: when, us."""
    chance = random.Random(writer)
    return parcels_of(
        writer,
        [
            [
                draft
                for _ in range(2)
                for draft in call_drafts(tenant=chance.choice(tenants), charged={"calls": 1}, at=at)
            ]
            for _ in range(number)
        ],
    )


def records_of(parcels: Sequence[Parcel]) -> int:
    return sum(parcel.last - parcel.first + 1 for parcel in parcels)


async def send(url: str, parcels: Sequence[Parcel], *, pause: float = 0.0) -> None:
    """As a gateway does: until every parcel is acknowledged."""
    connection = Connection(JetStreamConfig(url))
    stream = JetStreamAuditStream(connection, SEAL, 2.0)
    connection.start()
    try:
        for start in range(0, len(parcels), 20):
            part = parcels[start : start + 20]
            async with asyncio.timeout(60):
                while True:
                    try:
                        await connection.ready(2.0)
                        await ensure_streams(connection)
                        await stream.publish(part)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            await asyncio.sleep(pause)
    finally:
        await stream.close()


async def confirmed(url: str) -> dict[str, int]:
    """Of each chain; nothing while nobody answers."""
    connection = Connection(JetStreamConfig(url))
    stream = JetStreamAuditStream(connection, SEAL)
    connection.start()
    try:
        await connection.ready()
        return dict(await stream.stored())
    except Unavailable:
        return {}
    finally:
        await stream.close()


@pytest.fixture
def processors(tmp_path: Path, own_postgres: PostgresServer, own_nats: NatsServer) -> Iterator[Processors]:
    found = Processors(tmp_path, own_postgres.url, own_nats.url)
    yield found
    found.close()


def test_records_are_stored_checked_signed_and_confirmed(processors: Processors, own_nats: NatsServer) -> None:
    parcels = blocks("w1", 100)
    total = records_of(parcels)
    asyncio.run(send(own_nats.url, parcels))
    one = processors.start()
    within(60, one.ready)
    last = "select max(relname) from pg_class where relname ~ '^tool_calls_[0-9]{8}$'"
    ((partition,),) = processors.ask(last)
    with psycopg.connect(processors.postgres) as owner:
        owner.execute(sql.SQL("drop table metrics.{}").format(sql.Identifier(partition)))
    within(90, lambda: processors.ask(last) == [(partition,)], "the leader makes the partitions of the days to come")
    within(60, lambda: sum(asyncio.run(confirmed(own_nats.url)).values()) == total)
    status, document = one.get("/readyz")
    assert (status, document["parts"]) == (200, {"postgres": {"ready": True}, "nats": {"ready": True}})
    assert one.end() == 0, one.log.read_text()
    fault, verifier = processors.verdict()
    assert fault is None
    assert (verifier.records, verifier.chains) == (total, 2)
    assert verifier.checkpoints >= 2
    assert processors.ask("select count(*), count(distinct id) from fulcrum.audit_events") == [(total, total)]
    assert processors.ask("select count(*) from fulcrum.audit_faults") == [(0,)]
    assert processors.ask("select count(*) from fulcrum.call_inputs") == [(total // 2,)]
    assert processors.key.split("\n")[1] not in one.log.read_text()


def test_it_waits_for_what_is_not_there_and_says_so(
    processors: Processors, own_postgres: PostgresServer, own_nats: NatsServer
) -> None:
    own_postgres.stop()
    own_nats.stop()
    one = processors.start()
    within(60, lambda: one.get("/readyz")[0] == 503)
    assert one.get("/healthz")[0] == 200
    own_postgres.start()
    within(60, lambda: "detail" not in one.get("/readyz")[1]["parts"]["postgres"])
    assert not one.get("/readyz")[1]["parts"]["nats"]["ready"]
    own_nats.start()
    within(60, one.ready)
    own_postgres.stop()
    within(60, lambda: not one.get("/readyz")[1]["parts"]["postgres"]["ready"])
    parcels = blocks("w1", 10)
    asyncio.run(send(own_nats.url, parcels))
    own_postgres.start()
    within(60, one.ready)
    within(60, lambda: sum(asyncio.run(confirmed(own_nats.url)).values()) == records_of(parcels))
    assert one.end() == 0
    assert processors.verdict()[0] is None


@pytest.mark.parametrize("kills", [12])
def test_processors_and_servers_that_are_killed_lose_and_double_nothing(
    processors: Processors, own_postgres: PostgresServer, own_nats: NatsServer, kills: int
) -> None:
    chance = random.Random(20261124)
    writers = [blocks(f"w{number}", 200, ("default", "acme", "a b.c")) for number in range(2)]
    total = sum(records_of(parcels) for parcels in writers)
    for _ in range(3):
        processors.start()

    async def run() -> None:
        sending = [asyncio.create_task(send(own_nats.url, parcels, pause=0.5)) for parcels in writers]
        for number in range(kills):
            await asyncio.sleep(chance.uniform(0.1, 0.9))
            await asyncio.to_thread(harm, number)
        await asyncio.gather(*sending)

    def harm(number: int) -> None:
        if number % 6 == 3:
            own_postgres.kill()
            own_postgres.start()
        elif number % 6 == 5:
            own_nats.kill()
            own_nats.start()
        elif number % 6 == 1:  # the leader loses its session, and does not know it yet
            within(60, lambda: bool(processors.ask(_END_LEADER)))
        else:
            processors.running.pop(chance.randrange(len(processors.running))).kill()
            processors.start()

    asyncio.run(run())
    within(90, lambda: sum(asyncio.run(confirmed(own_nats.url)).values()) == total, processors.logs()[-6000:])
    for each in processors.running:
        within(60, each.ready)  # the last one may have begun just now
        assert each.end() == 0, each.log.read_text()
    fault, verifier = processors.verdict()
    assert fault is None, processors.logs()[-6000:]
    assert (verifier.records, verifier.chains) == (total, 6)
    assert processors.ask("select count(*), count(distinct id) from fulcrum.audit_events") == [(total, total)]
    assert processors.ask("select count(*) from fulcrum.audit_faults") == [(0,)]
    assert processors.ask("select count(*) from fulcrum.call_inputs") == [(total // 2,)]
    spent = processors.ask("select sum(calls) from fulcrum.budget_spent")
    assert spent in ([(None,)], [(total // 2,)])
    assert processors.ask("select count(*) from metrics.tool_calls where finished") == [(total // 2,)]
    for _, numbers in processors.ask(
        "select tenant, array_agg(number order by number) from fulcrum.audit_checkpoints group by tenant"
    ):
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_planted_loss_is_found(processors: Processors, own_nats: NatsServer) -> None:
    """The verdict that the tests above rely on is one that finds what is missing."""
    parcels = blocks("w1", 10, ("default",), at=hour_start())  # what is missing for long is not on its way any more
    asyncio.run(send(own_nats.url, [*parcels[:4], *parcels[5:]]))
    one = processors.start()
    within(60, lambda: asyncio.run(confirmed(own_nats.url)) == {"w1.default": parcels[3].last})
    assert one.end() == 0
    fault, _ = processors.verdict()
    assert f"seq {parcels[4].first} is missing" in str(fault)
