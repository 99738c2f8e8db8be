"""A whole installation whose parts are reached over TLS only, with certificates on both sides, as the guide says."""

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from governed_processes import marking_http
from installation_rig import PATIENT, Installation
from servers.certificates import Authority, Pair
from servers.process import HOST
from servers.tls import TlsFront, TlsNats
from servers.valkey import ValkeyServer

__all__ = ["TlsInstallation", "exported", "nats_settings", "open_tls_installation"]

GUIDE = Path(__file__).parents[1] / "docs" / "DEPLOYMENT_GUIDE.md"
PASSWORD = "hunter2hunter2"


def section() -> str:
    """What the guide says about it."""
    return GUIDE.read_text().split("## TLS to the parts\n")[1].split("\n## ")[0]


def exported() -> dict[str, str]:
    """The variables that the guide exports."""
    (block,) = re.findall(r"```sh\n(.*?)```", section(), re.DOTALL)
    return {name: value.strip("'") for name, value in re.findall(r"(FULCRUM_\w+)=('[^']*'|\S+)", block)}


def nats_settings() -> str:
    """What the guide writes into the server's configuration."""
    (block,) = re.findall(r"```\n(tls .*?)```", section(), re.DOTALL)
    return str(block)


class TlsInstallation(Installation):
    """`fronts` are what ends TLS, by part; NATS does it itself. `files` are what the processes name."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url, direct=True, tight=200)
        self.authority = Authority(folder / "ca")
        self.good = self.authority.issue("server")
        self.bad = self.authority.expired()
        self.files = folder / "etc"
        self.files.mkdir()
        shutil.copy(self.authority.ca, self.files / "ca.pem")
        self.identify(self.authority.issue("client"))
        self.valkey = self.parts["redis"] = ValkeyServer(folder / "valkey", password=PASSWORD)
        self.nats = self.parts["nats"] = TlsNats(folder / "nats", self.good, token=PASSWORD, demand=self.authority.ca)
        self.fronts: dict[str, TlsFront] = {}

    def identify(self, pair: Pair) -> None:
        """The certificate that the processes show from now on."""
        shutil.copy(pair.cert, self.files / "client.pem")
        shutil.copy(pair.key, self.files / "client.key")

    def show(self, part: str, pair: Pair) -> None:
        """What a part shows from now on; connections of before end."""
        if part == "nats":
            assert isinstance(self.nats, TlsNats)
            self.nats.show(pair)
        else:
            self.fronts[part].show(pair)

    def open(self) -> None:
        """See `Installation`; then the processes are told what the guide says."""
        super().open()
        self.fronts = {
            "postgres": TlsFront(self.postgres.port, self.good, manner="postgres"),
            "redis": TlsFront(self.valkey.port, self.good),
        }
        for front in self.fronts.values():
            front.start()
            front.demand(self.authority.ca)
        ports = {name: front.port for name, front in self.fronts.items()} | {"nats": self.nats.port}
        places = {
            "//fulcrum:": "//postgres:",  # the tests' server has no other user, and believes every password
            "db.example:5432/fulcrum_metrics": f"{HOST}:{ports['postgres']}/{self.database}",
            "redis.example:6379": f"{HOST}:{ports['redis']}",
            "nats.example:4222": f"{HOST}:{ports['nats']}",
            "PASSWORD": PASSWORD,
            "TOKEN": PASSWORD,
            "/etc/fulcrum": str(self.files),
        }
        told = exported()
        for there, here in places.items():
            told = {name: value.replace(there, here) for name, value in told.items()}
        self.environ |= told | PATIENT

    async def close(self) -> None:
        """Nothing is left behind."""
        for front in self.fronts.values():
            front.stop()
        await super().close()

    def logs(self) -> str:
        """All that the processes have said."""
        return "\n".join(each.log.read_text() for each in [*self.replicas, *self.processors])


@contextlib.asynccontextmanager
async def open_tls_installation(folder: Path, *, replicas: int = 2) -> AsyncIterator[TlsInstallation]:
    """Start all of it, serving."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(marking_http(folder / "http.notes"))
        installation = TlsInstallation(folder, url)
        stack.push_async_callback(installation.close)
        await asyncio.to_thread(installation.open)
        await installation.add(replicas, 1)
        await installation.serving()
        yield installation
