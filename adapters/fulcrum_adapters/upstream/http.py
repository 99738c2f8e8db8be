"""Streamable HTTP upstreams: what a message to an MCP server over HTTP means, whichever transport carries it.

The judged bytes go out as they are, once. Redirects are not followed: the decision was about this upstream, not about
whatever it points to.
"""

import time
from collections.abc import Callable
from functools import partial

from fulcrum_mcp.ports import UpstreamRequest

from .breaker import Breaker
from .config import HttpUpstreamConfig
from .content import decoded
from .dialer import Dialer, tls_context
from .fault import Fault
from .headers import Outgoing, incoming
from .pool import Pool
from .reply import HttpReply
from .target import parse_target, public_url
from .transport import Exchange, Transport

__all__ = ["HttpUpstream"]

_REDIRECTS = frozenset((300, 301, 302, 303, 305, 307, 308))


class HttpUpstream:
    """Implements `Upstream` for one URL. Connects lazily; belongs to the event loop that uses it first."""

    def __init__(
        self,
        config: HttpUpstreamConfig,
        *,
        dialer: Dialer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = config.name
        self._config = config
        self._target = target = parse_target(config.name, config.url)
        self._outgoing = outgoing = Outgoing(config.headers)
        self._breaker = Breaker()
        self._clock = clock
        dialer = dialer or Dialer(config.allow_private, trusted=config.trusted)
        tls = partial(tls_context, config.ca_file) if target.secure else None
        self._transport: Transport
        if config.client == "aiohttp":
            from .aiohttp_twin import AiohttpTransport  # noqa: PLC0415 - dear to import, rarely wanted

            self._transport = AiohttpTransport(config, target, outgoing.static, dialer, tls)
        else:
            self._transport = Pool(config, target, outgoing.static, dialer, tls)

    def __repr__(self) -> str:
        return f"HttpUpstream({self.name!r}, {self._target.place!r})"

    @property
    def suspended(self) -> bool:
        """The breaker is open: it is not asked but now and then."""
        return self._breaker.open

    async def send(self, request: UpstreamRequest) -> HttpReply:
        """See `Upstream`."""
        try:
            headers = self._outgoing.select(request.headers, body=request.verb == "POST")
            exchange = await self._exchange(request.verb, headers, request.message)
            return self._reply(exchange)
        except Fault as fault:
            raise self._target.failed(fault) from fault

    async def close(self) -> None:
        """See `Upstream`."""
        await self._transport.close()

    async def _exchange(self, verb: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Exchange:
        breaker = self._breaker
        if not breaker.failures:
            try:
                return await self._transport.exchange(verb, headers, body)
            except Fault as fault:
                if fault.connect:
                    breaker.failed(self._clock())
                raise
        wait = breaker.admit(self._clock())
        if wait:
            raise Fault(
                f"no connection came about {breaker.failures} times in a row; not tried for another {wait:.1f} s",
                sent=False,
                remedy="start it or correct its url",
            )
        try:
            exchange = await self._transport.exchange(verb, headers, body)
        except Fault as fault:
            if fault.connect:
                breaker.failed(self._clock())
            elif fault.sent:
                breaker.succeeded()
            else:
                breaker.abandoned()
            raise
        except BaseException:
            breaker.abandoned()
            raise
        breaker.succeeded()
        return exchange

    def _reply(self, exchange: Exchange) -> HttpReply:
        config = self._config
        try:
            self._check_status(exchange)
            return HttpReply(
                decoded(exchange),
                incoming(exchange.headers),
                self._target,
                max_body=config.max_body,
                max_event=config.max_event,
            )
        except Fault:
            exchange.abort()
            raise

    @staticmethod
    def _check_status(exchange: Exchange) -> None:
        if not 200 <= exchange.status <= 599:  # noqa: PLR2004 - RFC 9110 section 15
            raise Fault(f"its answer has status {exchange.status}")
        if exchange.status not in _REDIRECTS:
            return
        to = next((value.decode("latin-1") for name, value in exchange.headers if name == b"location"), "nowhere")
        raise Fault(
            f"it redirects ({exchange.status}) to {public_url(to)}, which is not followed",
            remedy="set its url to the address it redirects to, if that is to be trusted",
        )
