"""A whole installation of processes: Postgres, Valkey, NATS, replicas of `fulcrum server` and `fulcrum processor`s.

Everything can be killed, paused and started again; `direct=False` puts a fault proxy before each part.
"""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from governed_processes import FULCRUM, Governed, Up, free_port, marking_http, until
from kill_checker import Evidence, faults
from peers.marking_server import read_notes
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.proxy import FaultProxy
from servers.valkey import ValkeyServer
from stalls import Stalls

from fulcrum_adapters.postgres.audit_reader import PostgresAuditReader
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.ledger import RedisLedger
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_adapters.signing import GivenKeys
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.settings import load

__all__ = ["PATIENT", "STREAM", "Installation", "Processor", "Replica", "all_well", "open_installation"]

ADMIN = "flcrm_sk_adm1nkey_" + "a1b2c3d4e5f6g7h8" * 3
CONFIG = """\
anonymous = "dev"

[[server]]
name = "marks"
url = "{url}"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000000
period = "infinite"

[[budget]]
name = "tight"
scope = "tool:marks__tight"
calls = {tight}
period = "infinite"
action = "hard"
"""
STREAM = """
[audit]
durability = "stream"
"""
"""No spool: a record is durable once NATS has it."""
PATIENT = {"FULCRUM_REDIS_TIMEOUT": "5.0"}
"""Where nothing fails, a machine that is slow for half a second is no reason to deny a call."""


class Replica(Up):
    """One `fulcrum server` in front of the HTTP server `marks`."""

    def __init__(
        self, name: str, data: Path, config: Path, environ: Mapping[str, str], more: Sequence[str] = ()
    ) -> None:
        super().__init__(data, config, data.with_suffix(".log"))
        self.name = name
        self.data = data
        self.environ = dict(environ)
        self.patience = 90.0  # a ledger that was lost is rebuilt first, and waits for what killed processors had taken
        self._command = [
            *FULCRUM, "server", "--config", str(config), "--data", str(data), "--log", "warning",
            "--http", f"127.0.0.1:{self._port}", "--grpc", f"127.0.0.1:{free_port()}", *more,
        ]  # fmt: skip

    async def ready(self) -> Mapping[str, Any]:
        """What `/readyz` says of each part."""
        answer = await self._send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert answer is not None
        parts: Mapping[str, Any] = json.loads(answer[1])["parts"]
        return parts


class Processor(Governed):
    """One `fulcrum processor`."""

    def __init__(self, name: str, data: Path, environ: Mapping[str, str]) -> None:
        super().__init__(name, data.with_suffix(".log"))
        self.environ = dict(environ)
        self._command = [
            *FULCRUM, "processor", "--data", str(data), "--http", f"127.0.0.1:{free_port()}", "--log", "warning",
        ]  # fmt: skip

    async def start(self) -> None:
        await self.spawn(self._command, pipes=False)
        self.running.set()

    async def call(self, tool: str, text: str) -> dict[str, Any] | None:
        raise TypeError(f"a processor takes no calls: {tool} {text}")


class Installation:
    """`parts` are the servers by name, `proxies` what stands before them (empty when direct)."""

    def __init__(
        self, folder: Path, url: str, *, direct: bool, tight: int, more: str = "", anonymous: bool = True
    ) -> None:
        self.folder = folder
        self.notes = folder / "http.notes"
        self.config = folder / "fulcrum.toml"
        text = CONFIG.format(url=url, tight=tight) + more
        self.config.write_text(text if anonymous else text.removeprefix('anonymous = "dev"\n'))
        self.postgres = PostgresServer(folder / "postgres")
        self.valkey = ValkeyServer(folder / "valkey")
        self.nats = NatsServer(folder / "nats")
        self.parts = {"postgres": self.postgres, "redis": self.valkey, "nats": self.nats}
        self.direct = direct
        self.proxies: dict[str, FaultProxy] = {}
        self.environ: dict[str, str] = {}
        self.replicas: list[Replica] = []
        self.processors: list[Processor] = []
        self.database = ""
        self.stalls = Stalls(self._pids, folder)

    def _pids(self) -> Iterator[int]:
        """Of those who stand between a call and its answer."""
        yield os.getpid()
        gateways = [replica.process for replica in self.replicas]
        for process in (*gateways, *(part._process for part in self.parts.values())):
            if process is not None:
                yield process.pid

    def open(self) -> None:
        """Start the parts, and know what the processes are told."""
        self.stalls.__enter__()
        for part in self.parts.values():
            part.start()
        self.database = self.postgres.create_database()
        urls = {
            "postgres": self.postgres.database_url(self.database),
            "redis": self.valkey.url,
            "nats": self.nats.url,
        }
        if not self.direct:
            self.proxies = {name: FaultProxy(part.port).start() for name, part in self.parts.items()}
            urls = {name: self.proxies[name].through(url) for name, url in urls.items()}
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FULCRUM_")},
            **{f"FULCRUM_{name.upper()}_URL": url for name, url in urls.items()},
            "FULCRUM_NATS_SYNC_ALWAYS": "true",
            "FULCRUM_STATE_KEYS": secrets.token_hex(32),
            "FULCRUM_AUDIT_MAC_KEY": secrets.token_hex(32),
            "FULCRUM_AUDIT_SIGNING_KEY": pem,
            "FULCRUM_ADMIN_KEY": ADMIN,
        }

    async def add(self, replicas: int, processors: int, more: Sequence[str] = ("--policies", "allow_all")) -> None:
        """Start so many; each with a data folder of its own, as on hosts of their own."""
        for _ in range(replicas):
            name = f"server{len(self.replicas)}"
            self.replicas.append(Replica(name, self.folder / name, self.config, self.environ, more))
            await self.replicas[-1].start()
        for _ in range(processors):
            name = f"processor{len(self.processors)}"
            self.processors.append(Processor(name, self.folder / name, self.environ))
            await self.processors[-1].start()

    async def serving(self, seconds: float = 60.0) -> None:
        """Wait until every replica says that all its parts work."""

        async def all_ready() -> bool:
            return all([all(part["ready"] for part in (await each.ready()).values()) for each in self.replicas])

        await until(all_ready, "all parts are ready", seconds)

    def keys(self) -> GivenKeys:
        """Those of the installation."""
        return GivenKeys(
            self.environ["FULCRUM_AUDIT_SIGNING_KEY"], self.environ["FULCRUM_AUDIT_MAC_KEY"], self.folder / "no-keys"
        )

    def name(self) -> str:
        """The installation's id."""
        with psycopg.connect(self.postgres.database_url(self.database)) as connection:
            ((found,),) = connection.execute("SELECT id::text FROM fulcrum.installation").fetchall()
        return str(found)

    @contextlib.contextmanager
    def reader(self) -> Iterator[PostgresAuditReader]:
        """The store, asked directly, past all proxies."""
        config = PostgresConfig(self.postgres.database_url(self.database), timeout=30.0)
        with closing(Database(config)) as database, closing(PostgresAuditReader(database)) as reader:
            yield reader

    def lines(self) -> list[bytes]:
        """Every record and checkpoint of the store, in an export's order."""
        with self.reader() as reader:
            return list(reader.lines(None))

    def records(self) -> list[dict[str, Any]]:
        """Every record of the store."""
        return [json.loads(line) for line in self.lines() if line.startswith(b'{"specversion"')]

    def evidence(self, answered: Mapping[str, str], refused: Sequence[str] = ()) -> Evidence:
        """What the upstream, the clients, the trail and the ledger say, for `kill_checker.faults`."""
        key = self.keys().mac_key("default")

        def mac_of(text: str) -> str:
            return mac(key, encode({"text": text}))

        budgets = load(self.config, environ={}).budgets
        calls = read_notes(self.notes)
        tools = {budget.name: (budget.scope.id or "").removeprefix("marks__") for budget in budgets}
        records = self.records()
        config = RedisConfig(self.valkey.url, prefix="fulcrum:", timeout=5.0)
        with closing(RedisStore(config, self.name())) as store:
            store.state()
            ledger = RedisLedger(store)
            usages = ledger.usage(budgets, now_ns())
            held = sum(len(ledger.open(writer)) for writer in {r["chain"].partition(".")[0] for r in records})
        spent = {
            usage.budget.name: (usage.committed["calls"], usage.reserved["calls"], usage.budget.limits["calls"])
            for usage in usages
        }
        return Evidence(
            seen=[(tool, mac_of(text)) for tool, text in calls],
            answered={mac_of(text): answer for text, answer in answered.items()},
            records=records,
            refused=[mac_of(text) for text in refused],
            held=held,
            spent=spent,
            costing={name: sum(tools[name] in ("", tool) for tool, _ in calls) for name in spent},
        )

    async def close(self) -> None:
        """Whatever became of the test: nothing is left behind."""
        for process in [*self.replicas, *self.processors]:
            with contextlib.suppress(Exception):
                await process.close()
        for proxy in self.proxies.values():
            proxy.stop()
        for part in self.parts.values():
            part.resume()
            await asyncio.to_thread(part.kill)
        self.stalls.__exit__(None, None, None)


@contextlib.asynccontextmanager
async def open_installation(
    folder: Path,
    *,
    replicas: int = 2,
    processors: int = 1,
    direct: bool = True,
    tight: int = 200,
    more: str = "",
    options: Sequence[str] = ("--policies", "allow_all"),
    anonymous: bool = True,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Installation]:
    """Start all of it, serving."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(marking_http(folder / "http.notes"))
        installation = Installation(folder, url, direct=direct, tight=tight, more=more, anonymous=anonymous)
        stack.push_async_callback(installation.close)
        await asyncio.to_thread(installation.open)
        installation.environ |= environ or {}
        await installation.add(replicas, processors, options)
        await installation.serving()
        yield installation


async def all_well(
    installation: Installation, answered: Mapping[str, str], refused: Sequence[str], seconds: float = 120
) -> Evidence:
    """The evidence once nothing is wrong with it any more, or as it is after so long."""
    deadline = time.monotonic() + seconds
    while True:
        evidence = await asyncio.to_thread(installation.evidence, answered, refused)
        if not faults(evidence) or time.monotonic() > deadline:
            return evidence
        await asyncio.sleep(1)
