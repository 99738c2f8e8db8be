"""The same upstream over aiohttp: the pool's twin in tests, and the fall-back an operator may choose.

Imported only when chosen. aiohttp does not say whether a byte was written, so everything after a connection counts as
sent.
"""

import asyncio
import io
import socket
import ssl
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import is_ip_address
from multidict import CIMultiDict
from yarl import URL

from .config import HttpUpstreamConfig
from .dialer import Dialer
from .fault import Fault
from .target import Target
from .transport import Headers

__all__ = ["AiohttpTransport"]

_STEP = 256 * 1024


class _Resolver(AbstractResolver):
    """aiohttp asks our dialer: it connects to what was judged."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._dialer.resolve(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, address in found
            if family in (socket.AF_UNSPEC, kind)
        ]

    async def close(self) -> None:
        pass


class _Exchange:
    def __init__(self, response: aiohttp.ClientResponse, idle: float, headless: bool) -> None:
        self.status = response.status
        self.headers: Headers = [(name.lower(), value) for name, value in response.raw_headers]
        self._response = response
        self._idle = idle
        self._ended = headless

    async def chunk(self) -> bytes:
        if self._ended:
            return b""
        try:
            async with asyncio.timeout(self._idle):
                data = await self._response.content.readany()
        except TimeoutError as exc:
            self.abort()
            raise Fault(f"it sent nothing for {self._idle:g} s", timeout=True) from exc
        except asyncio.CancelledError:
            self.abort()
            raise
        except (aiohttp.ClientError, OSError) as exc:
            self.abort()
            raise Fault("it closed the connection before the end of its answer") from exc
        if not data:
            self._ended = True
        return data

    def abort(self) -> None:
        if not self._ended:
            self._response.close()


class AiohttpTransport:
    """Implements `Transport`."""

    def __init__(
        self,
        config: HttpUpstreamConfig,
        target: Target,
        static: Headers,
        dialer: Dialer,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self._config = config
        self._target = target
        host = target.host.rstrip(".")
        shown = f"[{host}]" if ":" in host else host
        self._url = URL(f"{target.scheme}://{shown}:{target.port}{target.path}", encoded=True)
        self._static = [("host", target.authority), *((n.decode("ascii"), v.decode("latin-1")) for n, v in static)]
        self._dialer = dialer
        self._literal = is_ip_address(host)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def exchange(self, verb: str, headers: Headers, body: bytes) -> _Exchange:
        """See `Transport`."""
        session = self._session if self._session and not self._closed else self._start()
        config = self._config
        sent = CIMultiDict(self._static)
        for name, value in headers:
            sent.add(name.decode("ascii"), value.decode("latin-1"))
        try:
            async with asyncio.timeout(config.head_seconds):
                if self._literal:  # aiohttp asks its resolver for names only
                    await self._dialer.resolve(self._target.host, self._target.port)
                response = await session.request(
                    verb, self._url, headers=sent, data=self._data(verb, body), allow_redirects=False
                )
        except aiohttp.ConnectionTimeoutError as exc:
            raise Fault(
                f"no connection within {config.connect_seconds:g} s",
                sent=False,
                timeout=True,
                connect=True,
                remedy="start it or correct its url",
            ) from exc
        except TimeoutError as exc:
            raise Fault(f"no answer within {config.head_seconds:g} s", timeout=True) from exc
        except aiohttp.ClientConnectorCertificateError as exc:
            raise Fault("its certificate is not accepted", sent=False, connect=True) from exc
        except aiohttp.ClientConnectorError as exc:
            cause = exc.os_error
            reason = "connection refused" if isinstance(cause, ConnectionRefusedError) else "no connection"
            raise Fault(reason, sent=False, connect=True, remedy="start it or correct its url") from exc
        except aiohttp.ServerDisconnectedError as exc:
            raise Fault("it closed the connection without an answer", remedy="see its log") from exc
        except aiohttp.ClientResponseError as exc:
            raise Fault("its answer is not HTTP/1.1", remedy="check that an MCP server listens there") from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise Fault("the connection broke before its answer") from exc
        exchange = _Exchange(response, config.idle_seconds, verb == "HEAD")
        self._judge(exchange)
        return exchange

    @staticmethod
    def _data(verb: str, body: bytes) -> bytes | io.BytesIO | None:
        if len(body) > _STEP:
            return io.BytesIO(body)  # aiohttp warns of large bytes
        return body if body or verb == "POST" else None

    async def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _start(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Fault("the connection was closed", sent=False, remedy="try again")
        config = self._config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=config.max_connections,
                keepalive_timeout=config.keep_seconds,
                resolver=_Resolver(self._dialer),
                use_dns_cache=False,
                ssl=self._tls() if self._tls else True,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=config.max_head,
            max_line_size=config.max_head,
            skip_auto_headers=("Accept", "User-Agent", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds, connect=None),
            trust_env=False,
        )
        return self._session

    def _judge(self, exchange: _Exchange) -> None:
        """What aiohttp's lenient parser lets pass and the pool does not."""
        lengths = {value for name, value in exchange.headers if name == b"content-length"}
        codings = [value.lower() for name, value in exchange.headers if name == b"transfer-encoding"]
        if len(lengths) > 1 or (codings and (lengths or codings != [b"chunked"])):
            exchange.abort()
            raise Fault("its answer contradicts itself on its length")
        if sum(len(name) + len(value) + 4 for name, value in exchange.headers) > self._config.max_head:
            exchange.abort()
            raise Fault(f"the head of its answer is larger than {self._config.max_head} bytes")
