"""`python -m bench.pipeline_courier DATA`: the courier of a gateway, alone in a process, so that its cost is seen."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from fulcrum_adapters.jetstream import Connection, JetStreamAuditStream, JetStreamConfig, Seal, ensure_streams
from fulcrum_adapters.signing import nats_key
from fulcrum_adapters.spool import FileLeadership, SpoolReader
from fulcrum_mcp.gateway.courier import Courier

__all__ = ["main"]


async def _carry(data: Path, url: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    connection = Connection(JetStreamConfig(url, sync_always=True), "bench-courier")
    connection.start()
    await connection.ready(20)
    await ensure_streams(connection)
    source = SpoolReader(data / "spool", data / "aside")
    seal = Seal(nats_key(os.environ["FULCRUM_AUDIT_MAC_KEY"], data / "keys"))
    courier = Courier(source, JetStreamAuditStream(connection, seal), FileLeadership(data / "courier.lock"))
    courier.start()
    await stopping.wait()
    await courier.close()
    await connection.close()


def main() -> None:
    uvloop.run(_carry(Path(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
