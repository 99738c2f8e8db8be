"""The way to the server: connections, one script call, and what may be said about one that failed."""

import hashlib
import time
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, unquote, urlparse

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from fulcrum_adapters.redis.breaker import Breaker
from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.faults import translated
from fulcrum_adapters.redis.tls import SentinelTlsConnection, TlsConnection, TlsSentinels
from fulcrum_mcp.errors import Unavailable

__all__ = ["RedisServer", "Script"]

Argument = str | bytes
_LOADS = 3
"""Times that a script is loaded for one call; somebody may flush it between its loading and its use."""


class Script:
    """A Lua script that stands beside this module."""

    def __init__(self, name: str) -> None:
        self.body = files("fulcrum_adapters.redis").joinpath(name).read_bytes()
        self.sha = hashlib.sha1(self.body).hexdigest()  # noqa: S324 - the name that EVALSHA knows a script by


class RedisServer:
    """Connections to one server, for any number of threads. Nothing is connected before the first call.

    A call waits for `timeout` for the answer, and for twice that with everything that comes before. It is sent once:
    when it fails, `Unavailable.doubtful` says whether it may have been done.
    """

    def __init__(self, config: RedisConfig) -> None:
        self.config = config
        self._breaker = Breaker()
        self._fault: str | None = None
        """Why it was broken when it last was."""
        self._pool = _sentinel_pool(config) if config.sentinel else _pool(config)

    def run(self, script: Script, key: str, *arguments: Argument) -> bytes:
        """The script's answer. Raises `Unavailable`."""
        answer: bytes = self.command("EVALSHA", script.sha, "1", key, *arguments, script=script)
        return answer

    def command(self, *words: Argument, script: Script | None = None) -> Any:
        """One command. Raises `Unavailable`."""
        probe = self._breaker.enter()
        if probe is None:
            why = self._fault or f"redis: {self.config.place} has not answered just now"
            raise Unavailable(f"{why}; it is asked again in a moment")
        broken = True
        try:
            answer = self._exchange(words, script, probe=probe)
            broken = False
        except Unavailable as fault:
            broken = not isinstance(fault.__cause__ or fault.__context__, ResponseError)
            self._fault = str(fault) if broken else self._fault
            raise
        else:
            return answer
        finally:
            self._breaker.leave(probe=probe, failed=broken)

    def _exchange(self, words: tuple[Argument, ...], script: Script | None, *, probe: bool) -> Any:
        sent, until = False, time.monotonic() + 2 * self.config.timeout
        connection: Any = None
        try:
            connection = self._pool.get_connection()
            if probe:
                self._ask(connection, until, "PING")
            sent = True
            return self._known(connection, until, words, script)
        except ResponseError as fault:
            raise translated(fault, self.config.place, sent=sent) from None  # it may quote what was sent: a password
        except (RedisError, OSError, ValueError) as fault:
            if connection is not None:
                connection.disconnect()  # an answer that comes late must not be taken for the next one's
            raise translated(fault, self.config.place, sent=sent) from fault
        except BaseException:
            if connection is not None:
                connection.disconnect()
            raise
        finally:
            if connection is not None:
                self._pool.release(connection)

    def _known(self, connection: Any, until: float, words: tuple[Argument, ...], script: Script | None) -> Any:
        """The answer, also of a server that forgets the script meanwhile: while it is unknown, nothing is done."""
        for _ in range(_LOADS):
            try:
                return self._ask(connection, until, *words)
            except NoScriptError:
                if script is None or _said(self._ask(connection, until, "SCRIPT", "LOAD", script.body)) != script.sha:
                    raise InvalidResponse("the script was damaged on its way") from None
        return self._ask(connection, until, *words)

    def _ask(self, connection: Any, until: float, *words: Argument) -> Any:
        within = min(self.config.timeout, until - time.monotonic())
        if within <= 0:
            raise redis.TimeoutError("no time left")
        connection.send_command(*words)
        try:
            return connection.read_response(timeout=within)
        except RedisError:
            raise
        except Exception as fault:  # the parser's own errors have no common base
            raise InvalidResponse("not the protocol") from fault

    def close(self) -> None:
        """Let go of all connections. Idempotent."""
        self._pool.disconnect()


def _said(answer: object) -> str:
    return answer.decode("ascii", "replace") if isinstance(answer, bytes) else str(answer)


def _settings(config: RedisConfig) -> dict[str, Any]:
    return {
        "socket_timeout": config.timeout / 2,  # of each step before the request; its answer has a time of its own
        "socket_connect_timeout": config.timeout / 2,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
        "health_check_interval": 0,
    }


def _pool(config: RedisConfig) -> "redis.ConnectionPool":
    read: Any = parse_url  # redis-py has no types here
    said = {name: value for name, value in read(config.url).items() if not name.startswith(("ssl_", "sentinel_"))}
    if config.tls:
        said |= {"connection_class": TlsConnection, "certificates": config.certificates}
    return redis.ConnectionPool(**said, **_settings(config))


def _sentinel_pool(config: RedisConfig) -> "redis.ConnectionPool":
    """Sentinels share the time of one connection, however many of them are down."""
    parsed = urlparse(config.url)
    who, options = parsed.netloc.rpartition("@")[0], dict(parse_qsl(parsed.query))
    user, _, password = (unquote(part) for part in who.partition(":"))
    settings = _settings(config)
    share = config.timeout / 2 / len(config.hosts)
    asking = settings | {"socket_timeout": share, "socket_connect_timeout": share}
    asking |= {"username": options.get("sentinel_username"), "password": options.get("sentinel_password")}
    settings |= {"username": user or None, "password": password or None, "db": int(config.database)}
    make: Any = Sentinel  # redis-py has no types here
    pool: Any = SentinelConnectionPool
    if config.tls:
        certificates = {"certificates": config.certificates}
        sentinels = TlsSentinels(config.hosts, asking | certificates)
        settings |= {"connection_class": SentinelTlsConnection, **certificates}
    else:
        sentinels = make(config.hosts, sentinel_kwargs=asking)
    made: redis.ConnectionPool = pool(config.service, sentinels, **settings)
    return made
