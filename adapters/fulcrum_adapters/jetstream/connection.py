"""One connection to NATS that is there whenever a server is.

The client's own reconnection is not used: it waits long, keeps what was published in a buffer of which nobody knows
what arrives, and gives up for good on some errors. Here a lost connection fails everything that waits at once, and a
new one is made, for ever, with short waits; whoever subscribes does so in `on_up`, at every new connection.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.msg import Msg

from fulcrum_adapters.jetstream.client import Client
from fulcrum_adapters.jetstream.config import Address, JetStreamConfig
from fulcrum_adapters.jetstream.credentials import Credentials
from fulcrum_mcp.errors import FulcrumError, Unavailable
from fulcrum_mcp.ports.tls import after_handshake, tls_fault

__all__ = ["Client", "Connection", "Msg", "Refused"]

_log = structlog.get_logger("fulcrum.nats")

_WAITS: Final = (0.05, 0.1, 0.25, 0.5)
"""Seconds between two tries; the last for ever."""
_LOOK: Final = 0.1
_LOST: Final = "the connection was lost"
_NOT_YET: Final = "not connected yet"
_PING: Final = 2.0
_MOST_PINGS: Final = 2
_PENDING: Final = 0
"""Nothing is kept for later while there is no connection, and nothing waits for room in a buffer."""


class Refused(Unavailable):
    """The server has answered that it does not; `status` and `number` are JetStream's."""

    def __init__(self, message: str, status: int = 0, number: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.number = number


class _Guarded(Client):
    """Says who we are only over TLS where TLS was asked for, also to a server that does not offer it."""

    introduced = False
    """It was told who we are; after TLS where there is any."""

    def _connect_command(self) -> bytes:
        if "tls" in self.options and not self._server_info.get("tls_required"):
            raise nats.errors.Error(
                "the server does not offer TLS, or leaves it to the client, and nats.url says tls://; demand it there"
            )
        self.introduced = True
        return super()._connect_command()


class Connection:
    """Made on the loop that uses it; `start`, then `close`."""

    def __init__(self, config: JetStreamConfig, name: str = "fulcrum") -> None:
        self.config = config
        self._name = name
        self._addresses = config.addresses()
        self._certificates = config.certificates
        if any(address.tls for address in self._addresses):
            logging.getLogger("asyncio").addFilter(_tells)  # no second time where it is there
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._fault = self._absent = _NOT_YET
        self._told: str | None = None
        self._late: set[asyncio.Task[None]] = set()
        self.on_up: list[Callable[[Client], Awaitable[None]]] = []
        """Run at every new connection, before anybody may use it; if one fails, the connection is made anew."""
        self.on_down: list[Callable[[], None]] = []
        """Run when a connection was lost."""

    def join(self, begin: Callable[[Client], Awaitable[None]], end: Callable[[], None] | None = None) -> None:
        """Add to `on_up` and `on_down`; when it is connected already, `begin` runs soon."""
        self.on_up.append(begin)
        if end is not None:
            self.on_down.append(end)
        if self._client is not None:
            task = asyncio.get_running_loop().create_task(self._join_late(begin, self._client))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    async def _join_late(self, begin: Callable[[Client], Awaitable[None]], client: Client) -> None:
        try:
            await begin(client)
        except Exception as exc:  # noqa: BLE001 - said, and tried again with a new connection
            self._failed(exc)
            await _leave(client)

    def start(self) -> None:
        """Begin to connect, and to stay connected. Idempotent."""
        if self._task is None:
            self._closing = False
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def ready(self, seconds: float | None = None) -> Client:
        """Wait until it is connected. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(self.config.timeout if seconds is None else seconds):
                while not self.connected:
                    await self._up.wait()
                    await asyncio.sleep(0 if self.connected else _LOOK)
        except TimeoutError:
            raise self.unavailable(self._fault or self._told or self._absent) from None
        return self.client

    @property
    def connected(self) -> bool:
        """Is it, as far as is known?"""
        return self._client is not None and self._client.is_connected

    @property
    def client(self) -> Client:
        """The present client. Raises `Unavailable`, certain that nothing was sent."""
        client = self._client  # other threads ask, too
        if client is None or not client.is_connected:
            raise self.unavailable(self._fault or self._told or self._absent)
        return client

    def unavailable(self, why: str, *, doubtful: bool = False) -> Unavailable:
        """An error with place and remedy."""
        return Unavailable(f"NATS at {self.config.place}: {why}; check nats.url and the server", doubtful=doubtful)

    async def ask(self, subject: str, body: Mapping[str, Any] | bytes = b"", seconds: float | None = None) -> Msg:
        """One request and its answer. Raises `Unavailable`, doubtful when there was no answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        client = self.client
        try:
            return await client.request(subject, raw, timeout=seconds or self.config.timeout)
        except nats.errors.NoRespondersError as exc:
            raise Refused(str(self.unavailable("nobody answers there: JetStream is not enabled")), 503) from exc
        except (nats.errors.Error, OSError, TimeoutError) as exc:
            raise self.unavailable(_words(exc), doubtful=True) from exc

    async def api(self, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request to JetStream's API. Raises `Refused` or `Unavailable`."""
        answer = await self.ask(f"$JS.API.{call}", b"" if body is None else json.dumps(body).encode())
        try:
            told: dict[str, Any] = json.loads(answer.data)
        except (ValueError, RecursionError):
            raise self.unavailable(f"an answer to {call} that is no JSON") from None
        if fault := told.get("error"):
            what = f"NATS at {self.config.place} refuses {call}: {fault.get('description')}"
            raise Refused(what, int(fault.get("code", 0)), int(fault.get("err_code", 0)))
        return told

    async def _keep(self) -> None:
        turn = 0
        while not self._closing:
            address = self._addresses[turn % len(self._addresses)]
            lost = asyncio.Event()
            client = _Guarded()
            try:
                async with asyncio.timeout(self.config.timeout):
                    await self._dial(client, address, lost)
                    for begin in self.on_up:
                        await begin(client)
            except Exception as exc:  # noqa: BLE001 - whatever it is: said, and tried again
                self._failed(exc)
                await _leave(client)
                wait = _WAITS[min(turn // len(self._addresses), len(_WAITS) - 1)]
                turn += 1
                await asyncio.sleep(wait)
                continue
            self._client = client
            self._absent = _LOST
            if self._told is not None:
                _log.info("connected to NATS again", place=self.config.place)
                self._told = None
            self._up.set()
            turn = 0
            try:
                while client.is_connected and not self._closing:  # it may be closing for long before it says so
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK):
                            await lost.wait()
            finally:
                self._client = None
                self._up.clear()
                for end in self.on_down:
                    end()
                await _leave(client)
            if self._fault == "":
                self._failed(ConnectionError(_LOST))

    async def _dial(self, client: _Guarded, address: Address, lost: asyncio.Event) -> None:
        async def told(error: Exception) -> None:
            self._fault = _words(error)

        async def ended() -> None:
            lost.set()

        self._fault = ""
        tls = await asyncio.to_thread(self._certificates.context) if address.tls else None
        path = self.config.credentials
        credentials = None if path is None else Credentials.read(path)
        try:
            await client.connect(
                servers=[address.url],
                name=self._name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, round(self.config.timeout)),
                ping_interval=_PING,  # type: ignore[arg-type] # seconds, a fraction is fine
                max_outstanding_pings=_MOST_PINGS,
                pending_size=_PENDING,
                error_cb=told,
                disconnected_cb=ended,
                closed_cb=ended,
                tls=tls,
                user=address.user,
                password=address.password,
                token=address.token,
                user_jwt_cb=None if credentials is None else credentials.jwt,
                signature_cb=None if credentials is None else credentials.sign,
            )
            if not client.is_connected:
                raise ConnectionError(_LOST)
        except OSError as exc:
            if tls is None or not client.introduced or isinstance(exc, TimeoutError):
                raise
            raise Unavailable(after_handshake("nats")) from exc

    def _failed(self, exc: Exception) -> None:
        if isinstance(exc, FulcrumError):
            self._fault = str(exc)
        else:
            self._fault = self._fault or _words(exc)
        if self._told != self._fault:
            self._told = self._fault
            _log.warning("not connected to NATS", place=self.config.place, reason=self._fault)

    async def close(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        self._closing = True
        if task is not None:
            task.cancel()  # which the client swallows where it is just leaving a connection
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fault = "closed"


def _tells(record: logging.LogRecord) -> bool:
    """All but what asyncio says at the end of every connection over TLS that the client made, for no fault."""
    return "returning true from eof_received()" not in record.getMessage()


async def _leave(client: Client) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1.0):
            await client.close()


def _words(exc: BaseException) -> str:
    """What a foreign error says; URLs that we give have no secrets in them."""
    if isinstance(exc, nats.errors.TimeoutError | TimeoutError):
        return "no answer in time"
    if isinstance(exc, nats.errors.AuthorizationError):
        return "the credentials are not accepted"
    if (insecure := tls_fault(exc, "nats")) is not None:
        return insecure
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return (str(exc) or type(exc).__name__).removeprefix("nats: ")
