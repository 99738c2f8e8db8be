"""`fulcrum audit reconcile` over a real spool, NATS and Postgres: what it says is what was done to them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from archive_rig import call_drafts
from processor_processes import SEAL, Processors, within
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from spool_folders import reader

from fulcrum_adapters.jetstream import Connection, JetStreamAuditStream, JetStreamConfig, ensure_streams
from fulcrum_adapters.spool import Spool
from fulcrum_mcp.core.audit import parse_record
from fulcrum_mcp.core.frames import INPUTS, RECORD, frame
from fulcrum_mcp.ports import Parcel, SpoolPosition

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.timeout(240)]


class Host:
    """A gateway's machine: its spool, and what it sends."""

    def __init__(self, folder: Path, processors: Processors) -> None:
        self.data = folder / "host"
        self.data.mkdir(mode=0o700)
        self.processors = processors
        self.nats = processors.environ["FULCRUM_NATS_URL"]

    def record(self, number: int) -> None:
        with Spool.open(self.data / "spool") as spool:
            for each in range(number):
                spool.append(call_drafts(tenant="acme" if each % 3 else "default"))

    def parcels(self) -> list[Parcel]:
        """One a record, as a courier might."""
        source = reader(self.data / "spool")
        made: list[Parcel] = []
        for writer in source.writers():
            position = SpoolPosition(0, 0)
            while (chunk := source.read(writer, position)) is not None:
                position = chunk.position
                inputs = dict(chunk.inputs)
                for line in chunk.lines:
                    head = parse_record(line)
                    assert head is not None
                    body = frame(RECORD, line)
                    if head.id in inputs:
                        body += frame(INPUTS, head.id.encode() + b"\n" + inputs[head.id])
                    made.append(Parcel(head.tenant, head.chain, head.seq, head.seq, body))
        return made

    def send(self, parcels: list[Parcel]) -> None:
        async def run() -> None:
            connection = Connection(JetStreamConfig(self.nats))
            stream = JetStreamAuditStream(connection, SEAL)
            connection.start()
            try:
                await connection.ready()
                await ensure_streams(connection)
                await stream.publish(parcels)
            finally:
                await stream.close()

        asyncio.run(run())

    def reconcile(self, *options: str) -> tuple[int, Any]:
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "fulcrum_mcp.cli",
                "audit",
                "reconcile",
                "--json",
                "--data",
                str(self.data),
                *options,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **self.processors.environ},
        )
        return ran.returncode, json.loads(ran.stdout) if ran.stdout else {"said": ran.stderr}


@pytest.fixture
def processors(tmp_path: Path, own_postgres: PostgresServer, own_nats: NatsServer) -> Iterator[Processors]:
    found = Processors(tmp_path, own_postgres.url, own_nats.url)
    yield found
    found.close()


def test_it_follows_records_on_their_way_and_finds_and_repairs_what_is_lost(
    processors: Processors, tmp_path: Path, own_nats: NatsServer
) -> None:
    host = Host(tmp_path, processors)
    host.record(60)
    parcels = host.parcels()
    processor = processors.start()
    within(60, processor.ready)
    assert processor.end() == 0
    host.send(parcels[:100])
    code, told = host.reconcile("--wait", "0")
    assert (code, told["spool"], told["stream"], told["store"]) == (1, 120, 100, 0), told
    said = {each["where"]: each["repairable"] for each in told["differences"]}
    assert said == {
        "in the spool and in the stream, not in the store": True,
        "in the spool, not in the store": True,
    }
    processor = processors.start()
    within(60, lambda: processors.ask("select count(*) from fulcrum.audit_events") == [(100,)])
    host.send(parcels[100:])
    code, told = host.reconcile("--wait", "60s")
    assert (code, told["clean"], told["store"]) == (0, True, 120), told
    with psycopg.connect(processors.postgres) as owner:
        owner.execute("alter table fulcrum.audit_events disable trigger all")  # as one who has taken it over
        owner.execute("delete from fulcrum.audit_events where seq in (3, 4)")
        owner.execute("alter table fulcrum.audit_events enable trigger all")
    code, told = host.reconcile("--wait", "0")
    assert code == 1, told
    assert {(each["first"], each["last"], each["what"]) for each in told["differences"]} == {(3, 4, "missing")}
    code, told = host.reconcile("--wait", "20s", "--repair")
    assert (code, told["clean"], told["repaired"]) == (0, True, 4), told
    assert processor.end() == 0
    assert processors.verdict()[0] is None
    own_nats.stop()
    code, _ = host.reconcile("--wait", "0")
    assert code == 3


def test_a_loss_on_the_way_is_repaired_from_the_spool_and_the_chains_go_on(
    processors: Processors, tmp_path: Path
) -> None:
    """NATS can lose what it has acknowledged: the gap waits, is named, filled, and signed over."""
    host = Host(tmp_path, processors)
    host.record(30)
    parcels = host.parcels()
    lost = {parcels[7].last, parcels[8].last}
    processor = processors.start()
    within(60, processor.ready)
    host.send([parcel for parcel in parcels if not (parcel.chain == parcels[7].chain and parcel.last in lost)])
    within(60, lambda: processors.ask("select count(*) from fulcrum.audit_events") == [(60 - len(lost),)])
    code, told = host.reconcile("--wait", "0")
    assert (code, {each["where"] for each in told["differences"]}) == (1, {"in the spool, not in the store"})
    code, told = host.reconcile("--wait", "20s", "--repair")
    assert (code, told["repaired"]) == (0, len(lost)), told
    within(60, lambda: processors.ask("select sum(size) from fulcrum.audit_chains") == [(60,)])
    assert processor.end() == 0
    fault, verifier = processors.verdict()
    assert (fault, verifier.records) == (None, 60)
