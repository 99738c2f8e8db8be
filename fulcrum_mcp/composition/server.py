"""The whole gateway of `fulcrum up`: data plane, control plane, processor and faces in one process on one loop."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from fulcrum_mcp.api.bounded_http import BoundedHttp
from fulcrum_mcp.api.challenge import challenge
from fulcrum_mcp.api.health import Part, health_routes
from fulcrum_mcp.api.mcp.endpoint import Bounds, Face, McpEndpoint
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.mcp.writer import Receive, Send
from fulcrum_mcp.api.rest import OAuthMetadata, RestDeps, rest_app
from fulcrum_mcp.composition.audit import open_processor
from fulcrum_mcp.composition.audit_face import StoredTrail
from fulcrum_mcp.composition.control import ControlPlane, open_control, open_ledger_usage
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.gateway import DataPlane, open_data_plane
from fulcrum_mcp.composition.management import into_journal
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.merged import MergedFace
from fulcrum_mcp.gateway.single import SingleFace
from fulcrum_mcp.processor import Processor, ProcessorConfig
from fulcrum_mcp.settings import Settings

__all__ = ["Server", "open_server"]

_log = structlog.get_logger("fulcrum.server")


@dataclass(slots=True)
class Server:
    """An opened gateway. `run` serves until it is told to stop, then closes everything in order."""

    settings: Settings
    plane: DataPlane
    control: ControlPlane
    processor: Processor
    endpoint: McpEndpoint
    rest: Starlette
    close_usage: Callable[[], None]
    address: str = ""
    """Where it listens, once it does: `host:port`."""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI: the MCP faces beside everything else."""
        if scope["type"] == "http" and self.endpoint.serves(scope["path"]):
            await self.endpoint(scope, receive, send)
        else:
            await self.rest(scope, receive, send)

    async def run(self, ready: Callable[["Server"], None] | None = None) -> None:
        """Listen and serve until SIGINT or SIGTERM. Raises `Unavailable` when the address is taken."""
        _allow_descriptors()
        bind = self.settings.http
        server = uvicorn.Server(
            uvicorn.Config(
                self,
                host=bind.host,
                port=bind.port,
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=5,
                proxy_headers=False,
            )
        )
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, _stop, server)
        grpc: Any = None
        try:
            sockets = [_listen(bind.host, bind.port)]
            self.address = _shown(*sockets[0].getsockname()[:2])
            await server.startup(sockets=sockets)
            self.processor.start()
            self.plane.hub.warm()
            grpc = await self._grpc()
            if ready is not None:
                ready(self)
            _calm_collector()
            await server.main_loop()
            await server.shutdown(sockets=sockets)
        finally:
            if grpc is not None:
                await grpc.close()
            await self.close()

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
        refused = self.plane.snapshots.refused
        return {
            "journal": Part(journal.failing is None, journal.failing or ""),
            "policies": Part(ready=True, detail="" if refused is None else "the newest change was refused"),
        }

    async def close(self) -> None:
        """End everything in order: what was answered is settled, recorded and stored."""
        await self.plane.close()
        await asyncio.to_thread(self.processor.stop)
        self.close_usage()
        self.control.close()


def _shown(host: str, port: int) -> str:
    """Where a client on this machine finds it."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - listening there was the operator's wish
    return f"[{reached}]:{port}" if ":" in reached else f"{reached}:{port}"


def _allow_descriptors() -> None:
    """As many open files as the system lets this process have: every client and upstream connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _calm_collector() -> None:
    """What was built at the start stays: the cyclic collector need not look at it, nor look every 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _stop(server: uvicorn.Server) -> None:
    if server.should_exit:
        server.force_exit = True
    server.should_exit = True


def _listen(host: str, port: int) -> Any:
    import socket  # noqa: PLC0415 - only here

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        msg = f"{host}:{port}: cannot listen there ({exc.strerror}); name another with --http HOST:PORT"
        raise Unavailable(msg) from exc
    listener.listen(2048)
    listener.setblocking(False)
    return listener


async def open_server(settings: Settings, fetch_jwks: Any = None) -> Server:
    """Open everything; nothing listens yet. Raises `Invalid` and `Unavailable`, each with place and remedy."""
    folder = open_folder(settings.data)
    usage, close_usage = open_ledger_usage(folder)
    record = into_journal(lambda: plane.journal, asyncio.get_running_loop())
    control = open_control(settings, usage, record=record, fetch_jwks=fetch_jwks)
    plane = await open_data_plane(settings, lambda: control.budget_repository.list(None))
    revision = control.revision()

    def forget_on_change() -> None:
        nonlocal revision
        current = control.revision()
        if current != revision:
            revision = current
            control.forget()

    plane.on_poll.append(forget_on_change)
    origin = OriginPolicy(settings.http.host, settings.allowed_hosts, settings.allowed_origins)
    oauth = settings.oauth
    hub = plane.hub
    faces: dict[str, Face] = {
        f"/servers/{name}/mcp": SingleFace(exchange, hub.sessions) for name, exchange in hub.exchanges.items()
    }
    faces["/mcp"] = MergedFace(hub)
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
    )
    processor = open_processor(folder, ProcessorConfig(inputs_days=settings.audit.inputs_days))
    deps = RestDeps(
        identity=control.identity,
        keys=control.keys,
        budgets=control.budgets,
        servers=control.servers,
        audit=StoredTrail(folder / "audit.db", plane.stores.keys, processor.drain),
        refuses=origin.refusal,
        oauth=None if oauth is None else OAuthMetadata(oauth.resource, oauth.issuer, oauth.scopes),
    )
    server = Server(settings, plane, control, processor, endpoint, Starlette(), close_usage)
    server.rest = rest_app(deps, [*health_routes(server.parts)])
    return server
