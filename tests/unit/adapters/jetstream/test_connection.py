"""A connection that is there whenever a server is, says why when it is not, and tells no secret."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from servers.nats import NatsServer
from servers.process import free_port
from stream_rigs import SEAL, eventually, fetched, nats_config, parcel

from fulcrum_adapters.jetstream import Connection, JetStreamAuditFeed, JetStreamAuditStream, JetStreamConfig
from fulcrum_adapters.jetstream.credentials import Credentials
from fulcrum_mcp.errors import Invalid, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.parts]

REFUSED = r"(?i)authorization|connection reset"
"""The server says why and hangs up at once: what it said is not always read before."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def connecting(config: JetStreamConfig) -> AsyncIterator[Connection]:
    connection = Connection(config)
    connection.start()
    try:
        yield connection
    finally:
        await connection.close()


async def refused(connection: Connection) -> str:
    """Why it is not connected, as soon as that is known."""
    async with asyncio.timeout(60):
        while True:
            with pytest.raises(Unavailable) as caught:
                await connection.ready(0.3)
            if "not connected yet" not in str(caught.value):
                return str(caught.value)


async def test_a_killed_server_is_noticed_at_once_and_found_again_when_it_is_back(own_nats: NatsServer) -> None:
    async with connecting(nats_config(own_nats.url)) as connection:
        await connection.ready()
        own_nats.kill()
        await eventually(lambda: not connection.connected, 10)
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+.*check nats\.url"):
            _ = connection.client
        await asyncio.to_thread(own_nats.start)
        begun = time.monotonic()
        await connection.ready(60)
        assert time.monotonic() - begun < 10, "it looks for it all the time"
        assert (await connection.api("INFO"))["type"].endswith("account_info_response")


async def test_a_server_that_stops_answering_is_given_up_and_found_again(own_nats: NatsServer) -> None:
    async with connecting(nats_config(own_nats.url, 1.0)) as connection:
        await connection.ready()
        own_nats.pause()
        with pytest.raises(Unavailable) as caught:
            await connection.api("INFO")
        assert caught.value.doubtful
        await eventually(lambda: not connection.connected)
        own_nats.resume()
        await connection.ready(60)


async def test_a_server_that_comes_later_is_found(own_nats: NatsServer) -> None:
    own_nats.kill()
    async with connecting(nats_config(own_nats.url)) as connection:
        assert re.search("refused|failed", await refused(connection))
        await asyncio.to_thread(own_nats.start)
        await connection.ready(60)


async def test_the_second_server_serves_when_the_first_is_gone(own_nats: NatsServer) -> None:
    config = nats_config(f"nats://127.0.0.1:{free_port()},{own_nats.url}")
    async with connecting(config) as connection:
        await connection.ready(60)


async def test_wrong_tokens_are_refused_and_never_said(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "nats", token="right") as server:
        async with connecting(nats_config(server.url)) as connection:
            await connection.ready()
        wrong = server.url.replace("right", "s3cretw0rd")
        async with connecting(nats_config(wrong)) as connection:
            said = await refused(connection)
            assert re.search(REFUSED, said)
            assert "s3cretw0rd" not in said


async def test_credentials_are_not_given_to_a_server_without_tls_where_tls_was_asked_for() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","headers":true,"max_payload":1048576}\r\n')
        heard.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with connecting(JetStreamConfig(f"tls://s3cret@127.0.0.1:{port}", timeout=1.0)) as connection:
        assert "does not offer TLS" in await refused(connection)
    server.close()
    await server.wait_closed()
    assert b"".join(heard) == b""


async def test_it_ends_also_where_its_client_swallows_being_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = asyncio.Event()

    async def leave(_client: object) -> None:
        leaving.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr("fulcrum_adapters.jetstream.connection._leave", leave)
    connection = Connection(JetStreamConfig(f"nats://127.0.0.1:{free_port()}"))
    connection.start()
    async with asyncio.timeout(60):
        await leaving.wait()
        await connection.close()


async def test_subscriptions_are_made_anew_at_every_connection(own_nats: NatsServer) -> None:
    ups: list[int] = []
    connection = Connection(nats_config(own_nats.url))

    async def up(_: object) -> None:
        ups.append(1)
        if len(ups) == 2:
            raise ConnectionError("a hook that fails is tried again with a new connection")

    connection.on_up.append(up)
    connection.start()
    await connection.ready()
    await asyncio.to_thread(own_nats.restart, kill=True)
    await eventually(lambda: len(ups) == 3 and connection.connected)
    await connection.close()


async def test_who_joins_late_is_served_as_well(own_nats: NatsServer) -> None:
    async with connecting(nats_config(own_nats.url)) as connection:
        await connection.ready()
        feed, stream = JetStreamAuditFeed(connection, SEAL), JetStreamAuditStream(connection, SEAL)
        with pytest.raises(Unavailable, match="not ready"):
            await stream.publish([parcel(1)])
        await feed.prepare()
        await stream.publish([parcel(1)])
        assert len(await fetched(feed, 1)) == 1


def test_a_port_that_nobody_listens_on_is_one() -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port())) != 0


class Key:
    """An NKEY: what NATS calls an Ed25519 key."""

    def __init__(self, kind: int) -> None:
        self._private = Ed25519PrivateKey.generate()
        self._kind = kind

    def _text(self, head: bytes, raw: bytes) -> str:
        check = 0
        for byte in head + raw:
            check ^= byte << 8
            for _ in range(8):
                check = (check << 1 ^ 0x1021 if check & 0x8000 else check << 1) & 0xFFFF
        return base64.b32encode(head + raw + check.to_bytes(2, "little")).decode().rstrip("=")

    @property
    def public(self) -> str:
        return self._text(bytes([self._kind]), self._private.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        head = bytes([18 << 3 | self._kind >> 5, (self._kind & 31) << 3])
        return self._text(head, self._private.private_bytes_raw())

    def jwt(self, subject: str, kind: str, nats: dict[str, object]) -> str:
        claims: dict[str, object] = {"iat": int(time.time()), "iss": self.public, "name": kind, "sub": subject}
        claims["nats"] = {"type": kind, "version": 2, **nats}
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        head = _part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        signed = f"{head}.{_part(json.dumps(claims).encode())}"
        return f"{signed}.{_part(self._private.sign(signed.encode()))}"


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Listening(NatsServer):
    """It answers nobody whom it does not know: that it listens must do."""

    def answers(self, seconds: float = 1.0) -> bool:
        with socket.socket() as probe:
            probe.settimeout(seconds)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3


def creds(path: Path, jwt: str, seed: str) -> Path:
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return path


@pytest.fixture
def guarded(tmp_path: Path) -> Callable[[], tuple[NatsServer, Path]]:
    """A server that knows its users by JWTs, and a user's `.creds` file."""

    def make() -> tuple[NatsServer, Path]:
        operator, system, account, user = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT), Key(USER)
        limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1}
        allowed: dict[str, object] = {"limits": {**limits, "wildcards": True}}
        preload = [f"{each.public}: {operator.jwt(each.public, 'account', allowed)}" for each in (system, account)]
        settings = "\n".join(
            [
                f"operator: {operator.jwt(operator.public, 'operator', {})}",
                "resolver: MEMORY",
                f"resolver_preload: {{ {', '.join(preload)} }}",
                f"system_account: {system.public}",
            ]
        )
        mine = account.jwt(user.public, "user", {"subs": -1, "data": -1, "payload": -1})
        server = Listening(tmp_path / "guarded", settings=settings)
        return server, creds(tmp_path / "user.creds", mine, user.seed)

    return make


async def test_a_credentials_file_opens_a_server_that_knows_its_users_by_them(
    guarded: Callable[[], tuple[NatsServer, Path]],
) -> None:
    server, path = guarded()
    with server:
        async with connecting(replace(nats_config(server.url), credentials=path)) as connection:
            await connection.ready(60)
        async with connecting(nats_config(server.url)) as connection:
            assert re.search(REFUSED, await refused(connection))


@pytest.mark.parametrize("seed", ["", "SUAM", "A" * 58, "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTAA"])
def test_a_file_without_a_sound_seed_is_refused_without_quoting_it(tmp_path: Path, seed: str) -> None:
    path = creds(tmp_path / "bad.creds", "a.b.c", seed)
    with pytest.raises(Invalid, match=r"nats\.credentials") as caught:
        Credentials.read(path)
    assert not seed or seed not in str(caught.value)
