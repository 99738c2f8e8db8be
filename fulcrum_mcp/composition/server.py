"""A whole gateway: data plane, control plane, what works beside them, and the faces, in one process on one loop."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import structlog
import uvicorn
from starlette.applications import Starlette

from fulcrum_mcp.api.bounded_http import BoundedHttp
from fulcrum_mcp.api.challenge import challenge
from fulcrum_mcp.api.health import Part, health_routes
from fulcrum_mcp.api.mcp.endpoint import Bounds, Face, McpEndpoint
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.mcp.routing import Routing
from fulcrum_mcp.api.mcp.writer import Receive, Send
from fulcrum_mcp.api.rest import OAuthMetadata, RestDeps, rest_app
from fulcrum_mcp.api.siblings import RelayedFace, Siblings
from fulcrum_mcp.composition.audit_face import StoredTrail
from fulcrum_mcp.composition.backing import Backing, Companion, embedded_backing
from fulcrum_mcp.composition.collector import calm_collector
from fulcrum_mcp.composition.control import OPERATOR, ControlPlane, open_control
from fulcrum_mcp.composition.ending import Ending, all_of
from fulcrum_mcp.composition.faces import served
from fulcrum_mcp.composition.figures import Figures
from fulcrum_mcp.composition.gateway import DataPlane, open_data_plane
from fulcrum_mcp.composition.listen import listen, shown
from fulcrum_mcp.composition.management import into_journal
from fulcrum_mcp.composition.telemetry import Telemetry
from fulcrum_mcp.composition.worker import Worker
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.merged import MergedFace
from fulcrum_mcp.gateway.metrics import gateway_metrics, gauge
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.ports import Metric, Point
from fulcrum_mcp.settings import Settings

__all__ = ["Planes", "Server", "open_server"]

Planes = Literal["both", "data", "control"]

_log = structlog.get_logger("fulcrum.server")


@runtime_checkable
class Suspending(Protocol):
    """An upstream with a breaker."""

    name: str

    @property
    def suspended(self) -> bool:
        """It is not asked at the moment."""
        ...


@dataclass(slots=True)
class Server:
    """An opened gateway. `run` serves until it is told to stop, then closes everything in order."""

    settings: Settings
    plane: DataPlane
    control: ControlPlane
    backing: Backing
    companions: Sequence[Companion]
    endpoint: McpEndpoint
    rest: Starlette
    worker: Worker | None = None
    """This process's part when it is one of several."""
    siblings: Siblings | None = None
    """The workers beside it."""
    address: str = ""
    """Where it listens, once it does: `host:port`."""
    figures: Figures = field(init=False)
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        number = "" if self.worker is None else f".{self.worker.seat.number}"
        instance = f"{socket.gethostname()}.{os.getpid()}{number}"
        self.figures = Figures(self.metrics, self.siblings)
        self.telemetry = Telemetry(self.settings.telemetry, self.plane.hub.settler, self.figures, instance)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI: the MCP faces beside everything else."""
        if scope["type"] == "http" and self.endpoint.serves(scope["path"]):
            await self.endpoint(scope, receive, send)
        else:
            await self.rest(scope, receive, send)

    async def run(self, ready: Callable[["Server"], None] | None = None) -> None:
        """Listen and serve until SIGINT or SIGTERM. Raises `Unavailable` when the address is taken.

        `ready` is called once it serves; a worker calls it once all of them do.
        """
        _allow_descriptors()
        bind, worker = self.settings.http, self.worker
        server = uvicorn.Server(served(self))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, _stop, server)
        if worker is None:
            loop.add_signal_handler(signal.SIGINT, _stop, server)
        grpc: Any = None
        ending = Ending()
        told: asyncio.Task[None] | None = None
        try:
            if worker is not None:
                await worker.attend(self.settings.watchdog_seconds, lambda: _stop_calmly(server))
                worker.say("open")
            sockets = [listen(bind.host, bind.port)] if worker is None else list(worker.http)
            self.address = shown(sockets[0])
            await server.startup(sockets=sockets)
            if worker is not None and worker.relay is not None:
                await self._take_from_siblings(server, worker.relay)
            for companion in self.companions:
                companion.start()
            speaks = worker is None or worker.speaks
            await self.telemetry.begin(listens=speaks)
            self.plane.hub.warm()
            grpc = await self._grpc() if speaks else None
            if worker is not None:
                worker.say("ready")
                told = loop.create_task(self._when_all_serve(worker, ready))
            elif ready is not None:
                ready(self)
            calm_collector(20_000)
            await self._serve(server, sockets, ending)
        finally:
            if grpc is not None:
                await ending.stage("gRPC", grpc.close)
            if told is not None:
                told.cancel()
            await self.close(ending)
            if worker is not None:
                await worker.leave()

    async def _serve(self, server: uvicorn.Server, sockets: list[socket.socket], ending: Ending) -> None:
        await server.main_loop()
        if self.worker is not None:
            self.worker.end_at_last()
        await ending.stage("requests", lambda: server.shutdown(sockets=sockets))

    async def _when_all_serve(self, worker: Worker, ready: Callable[["Server"], None] | None) -> None:
        await worker.greeting()
        if ready is not None:
            ready(self)

    async def _take_from_siblings(self, server: uvicorn.Server, listener: socket.socket) -> None:
        """Serve what other workers hand over; it ends together with the rest."""
        config = served(RelayedFace(self.figures.beside(self.endpoint)))
        config.load()

        def protocol() -> asyncio.Protocol:
            return BoundedHttp(config, server.server_state, {})

        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        loop = asyncio.get_running_loop()
        server.servers.append(await loop.create_unix_server(protocol, sock=listener, **kept))

    async def _grpc(self) -> Any:
        """The gRPC port; a gateway without it still governs."""
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say is said below, in our words
        from fulcrum_mcp.api.grpc_health import GrpcHealth  # noqa: PLC0415 - dear to import, wanted after readiness

        bind = self.settings.grpc
        health = GrpcHealth(str(bind), lambda: all(part.ready for part in self.parts().values()))
        try:
            await health.start()
        except Unavailable as fault:
            _log.warning("no gRPC", reason=str(fault))
            return None
        return health

    def parts(self) -> Mapping[str, Part]:
        """What readiness depends on; a slow upstream is no part of it."""
        journal = self.plane.journal
        return {
            "journal": Part(journal.failing is None, journal.failing or ""),
            "policies": Part(ready=True, detail=self._told_of_policies()),
            "configuration": Part(ready=True, detail=self.plane.follower.state),
            **self.backing.parts(),
            **({} if self.worker is None else {"workers": Part(ready=True, detail=self.worker.told())}),
        }

    def _told_of_policies(self) -> str:
        if self.plane.snapshots.refused is not None:
            return "the newest change was refused"
        return "" if self.plane.snapshots.judging else "none: every call is denied (fulcrum policy publish DIR)"

    def metrics(self) -> Sequence[Metric]:
        """Every figure of this process."""
        plane = self.plane
        current = plane.holder.current
        ready = [Point({"part": name}, float(part.ready)) for name, part in self.parts().items()]
        breakers = [
            Point({"server": upstream.name}, float(upstream.suspended))
            for upstream in plane.upstreams
            if isinstance(upstream, Suspending)
        ]
        return [
            *gateway_metrics(plane.hub, plane.journal),
            Metric("fulcrum_ready", "gauge", "1 where /readyz says that a part works.", ready),
            Metric("fulcrum_upstream_breaker_open", "gauge", "1 while an upstream is not asked.", breakers),
            gauge("fulcrum_key_lookups", "API keys that are being asked for.", self.control.lookup.waiting),
            Metric(
                "fulcrum_key_lookups_refused",
                "counter",
                "API keys that were not asked for, or not answered for, in time.",
                [Point({}, self.control.lookup.refused)],
            ),
            gauge("fulcrum_in_flight", "Requests that are being answered.", self.endpoint.in_flight),
            gauge("fulcrum_config_revision", "Revision of the stored configuration in use.", current.config_revision),
            gauge("fulcrum_config_age_seconds", "Since the store was last read.", plane.follower.age),
            gauge("fulcrum_kill_switches", "Kill switches that are on.", len(current.switches.switches)),
            *self.backing.metrics(),
        ]

    async def close(self, ending: Ending | None = None) -> None:
        """End everything in order, whatever of it fails or hangs: what was answered is settled, recorded and stored."""
        ending = ending or Ending()
        await ending.stage("telemetry", self.telemetry.close)
        await self.plane.close(ending)
        await ending.stage("companions", lambda: all_of(each.close() for each in reversed(self.companions)))
        await ending.stage("control", lambda: asyncio.to_thread(self.control.close))
        await ending.stage("backing", lambda: asyncio.to_thread(self.backing.close))
        ending.finish()


def _allow_descriptors() -> None:
    """As many open files as the system lets this process have: every client and upstream connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop(server: uvicorn.Server) -> None:
    if server.should_exit:
        server.force_exit = True
    server.should_exit = True


def _stop_calmly(server: uvicorn.Server) -> None:
    server.should_exit = True


async def open_server(
    settings: Settings,
    fetch_jwks: Any = None,
    worker: Worker | None = None,
    backing: Backing | None = None,
    planes: Planes = "both",
) -> Server:
    """Open everything, on the data folder alone if there is no other backing; nothing listens yet.

    `planes`: `data` serves MCP without the API, `control` the API without MCP and without upstreams.

    Raises `Invalid` and `Unavailable`, each with place and remedy.
    """
    seat = None if worker is None else worker.seat
    backing = backing or embedded_backing(settings)
    record = into_journal(lambda: plane.journal, asyncio.get_running_loop())

    def changed() -> None:
        plane.follower.changed()

    control = open_control(
        settings,
        backing.usage,
        record=record,
        changed=changed,
        fetch_jwks=fetch_jwks,
        repositories=backing.repositories,
    )
    plane = await open_data_plane(
        settings if planes != "control" else settings.model_copy(update={"servers": ()}),
        control.config,
        stores=backing.stores,
        seat=seat,
        feed=backing.feed,
        feed_fault=backing.feed_fault,
        otherwise=backing.otherwise,
    )
    plane.follower.on_revision.append(control.forget)
    origin = OriginPolicy(settings.http.host, settings.allowed_hosts, settings.allowed_origins)
    oauth = settings.oauth
    hub = plane.hub
    faces: dict[str, Face] = {
        f"/servers/{name}/mcp": SingleFace(exchange, hub.sessions) for name, exchange in hub.exchanges.items()
    }
    if planes != "control":
        faces["/mcp"] = MergedFace(hub)
    routing: Routing | None = None
    siblings: Siblings | None = None
    if worker is not None and worker.folder is not None:
        processes = [item.name for item in settings.servers if item.command is not None]
        siblings = Siblings(worker.seat, worker.folder)
        routing = Routing(siblings, hub.sessions, hub.rounds, hub.tasks, processes=processes)
    endpoint = McpEndpoint(
        faces,
        hub.sessions,
        control.mcp_identity,
        origin,
        bounds=Bounds(
            max_body=settings.limits.max_request,
            max_depth=settings.limits.max_depth,
            in_flight=settings.limits.in_flight,
            in_flight_per_key=settings.limits.in_flight_per_key,
        ),
        challenge=lambda presented: challenge(None if oauth is None else oauth.resource, presented=presented),
        routing=routing,
        end=hub.end,
    )
    plane.follower.on_revision.append(endpoint.standing.look_soon)  # after `forget`: it asks anew
    deps = RestDeps(
        identity=control.identity,
        keys=control.keys,
        budgets=control.budgets,
        switches=control.switches,
        policies=control.policies,
        servers=control.servers,
        audit=StoredTrail(backing.open_reader, plane.stores.keys, backing.drain),
        refuses=origin.refusal,
        oauth=None if oauth is None else OAuthMetadata(oauth.resource, oauth.issuer, oauth.scopes),
        operator=OPERATOR.tenant,
        metrics=lambda: server.figures.read(),  # noqa: PLW0108 - there is no server yet
    )
    companions = backing.companions(plane)
    server = Server(settings, plane, control, backing, companions, endpoint, Starlette(), worker, siblings)
    server.rest = rest_app(deps, [*health_routes(server.parts)], api=planes != "data")
    return server
