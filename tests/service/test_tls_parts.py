"""Postgres, Valkey and NATS over TLS: whose certificate is not right is refused in words, and served when it is."""

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from servers.certificates import DAY, Authority, Pair, self_signed
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.process import HOST
from servers.tls import SecureNats, TlsFront, TlsNats
from servers.valkey import Sentinel, ValkeyServer
from tls_rig import nats_settings

from fulcrum_adapters.jetstream import Connection, JetStreamConfig
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import connect
from fulcrum_adapters.redis import RedisConfig
from fulcrum_adapters.redis.server import RedisServer
from fulcrum_mcp.errors import Invalid, Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts]

PASSWORD = "hunter2"


@dataclass(frozen=True)
class World:
    """Who signs, who must not, and certificates of each kind."""

    authority: Authority
    good: Pair
    client: Pair
    stranger: Pair
    bad: Mapping[str, Pair]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder / "ours"), Authority(folder / "theirs", "other")
    bad = {
        "expired": authority.expired(),
        "not yet valid": authority.issue("early", since=3 * DAY),
        "another host": authority.issue("wrong", ("db.example", "10.0.0.2")),
        "another CA": other.issue("foreign"),
        "its own": self_signed(folder),
    }
    return World(authority, authority.issue("good"), authority.issue("client"), other.issue("stranger"), bad)


REMEDIES = {
    "expired": "renew it on the server",
    "not yet valid": "mend the clocks",
    "another host": "have the certificate name that host",
    "another CA": "name the CA that signed it with {part}.ca (FULCRUM_{PART}_CA)",
    "its own": "name the CA that signed it with {part}.ca (FULCRUM_{PART}_CA)",
}
UNTOLD = "look whether it has expired, and whether its CA is the one named with postgres.ca (FULCRUM_POSTGRES_CA)"
"""libpq says no more than that it is not accepted."""


@dataclass(frozen=True)
class Part:
    """One server that speaks TLS, and a client of ours that asks it something."""

    name: str
    server: TlsFront | TlsNats
    url: str
    use: Callable[..., None]

    def ask(self, **files: Any) -> None:
        """Raises `Unavailable`."""
        self.use(self.url, **files)


def ask_postgres(url: str, **files: Any) -> None:
    connect(PostgresConfig(url, timeout=5.0, **files)).close()


def ask_redis(url: str, timeout: float = 2.0, **files: Any) -> None:
    with closing(RedisServer(RedisConfig(url, timeout=timeout, **files))) as server:
        assert server.command("PING") in {b"PONG", "PONG"}


async def answered(connection: Connection) -> bool:
    """False: nothing is known yet. Raises `Unavailable` with what is."""
    try:
        await connection.ready(0.2)
    except Unavailable as fault:
        if "not connected yet" in str(fault):
            return False
        raise
    return True


def ask_nats(url: str, **files: Any) -> None:
    async def ask() -> None:
        connection = Connection(JetStreamConfig(url, timeout=5.0, **files))
        connection.start()
        try:
            async with asyncio.timeout(20):
                while not await answered(connection):
                    pass
        finally:
            await connection.close()

    asyncio.run(ask())


@pytest.fixture(scope="module", params=["postgres", "redis", "nats"])
def part(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Part]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "nats":
        with TlsNats(folder, world.good, token=PASSWORD) as nats:
            yield Part("nats", nats, nats.url, ask_nats)
    elif request.param == "redis":
        with ValkeyServer(folder, password=PASSWORD) as valkey, TlsFront(valkey.port, world.good) as front:
            yield Part("redis", front, f"rediss://:{PASSWORD}@{HOST}:{front.port}", ask_redis)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with TlsFront(server.port, world.good, manner="postgres") as front:
            url = f"postgresql://postgres:{PASSWORD}@{HOST}:{front.port}/postgres?sslmode=verify-full"
            yield Part("postgres", front, url, ask_postgres)


def refused(part: Part, **files: Any) -> str:
    """What is said of it: the part, its place, no password."""
    with pytest.raises(Unavailable) as caught:
        part.ask(**files)
    said = str(caught.value)
    assert part.name in said.lower()
    assert f"{HOST}:{part.server.port}" in said
    assert PASSWORD not in said
    assert not caught.value.doubtful
    return said


@pytest.mark.parametrize("kind", REMEDIES)
def test_a_wrong_certificate_is_refused_with_its_remedy_and_the_right_one_serves_again(
    part: Part, world: World, kind: str
) -> None:
    part.ask(ca=world.authority.ca)
    part.server.show(world.bad[kind])
    try:
        said = refused(part, ca=world.authority.ca)
        told = UNTOLD if part.name == "postgres" and kind != "another host" else REMEDIES[kind]
        assert told.format(part=part.name, PART=part.name.upper()) in said
    finally:
        part.server.show(world.good)
    part.ask(ca=world.authority.ca)


def test_a_private_ca_that_nobody_names_is_not_trusted(part: Part) -> None:
    assert f"{part.name}.ca (FULCRUM_{part.name.upper()}_CA)" in refused(part)


def test_a_client_certificate_is_shown_where_one_is_demanded(part: Part, world: World) -> None:
    ca, client, stranger = world.authority.ca, world.client, world.stranger
    part.server.demand(ca)
    try:
        wanted = f"name one that it accepts with {part.name}.cert (FULCRUM_{part.name.upper()}_CERT) and key"
        assert wanted in refused(part, ca=ca)
        assert wanted in refused(part, ca=ca, cert=stranger.cert, key=stranger.key)
        part.ask(ca=ca, cert=client.cert, key=client.key)
    finally:
        part.server.demand(None)


def test_a_key_that_others_may_read_is_refused_by_postgress_library(
    postgres_server: PostgresServer, world: World, tmp_path: Path
) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(world.client.key.read_bytes())
    key.chmod(0o644)
    with TlsFront(postgres_server.port, world.good, manner="postgres") as front:
        front.demand(world.authority.ca)
        url = f"postgresql://postgres@{HOST}:{front.port}/postgres"
        with pytest.raises(Unavailable, match=r"private key file .* has group or world access.*; look at postgres\.ca"):
            ask_postgres(url, ca=world.authority.ca, cert=world.client.cert, key=key)


def test_a_renewed_certificate_ends_no_connection_of_nats(world: World, tmp_path: Path) -> None:
    ca = world.authority.ca

    async def hold(nats: TlsNats) -> None:
        connection = Connection(JetStreamConfig(nats.url, ca=ca))
        connection.start()
        try:
            before = await connection.ready()
            await asyncio.to_thread(nats.reload, world.authority.issue("renewed"))
            await before.flush()
            assert connection.client is before
        finally:
            await connection.close()

    with TlsNats(tmp_path, world.good) as nats:
        asyncio.run(hold(nats))
        ask_nats(nats.url, ca=ca)


def test_nats_speaks_tls_as_the_guide_says(world: World, tmp_path: Path) -> None:
    block = nats_settings().replace("/etc/nats/ca.pem", str(world.authority.ca))
    block = block.replace("/etc/nats/nats.pem", str(world.good.cert)).replace("/etc/nats/nats.key", str(world.good.key))
    assert "/etc/" not in block
    with SecureNats(tmp_path, settings=block) as nats:
        url = nats.url.replace("nats://", "tls://")
        with pytest.raises(Unavailable, match=r"nats\.cert"):
            ask_nats(url, ca=world.authority.ca)
        ask_nats(url, ca=world.authority.ca, cert=world.client.cert, key=world.client.key)


def test_a_server_without_tls_is_not_spoken_to_where_tls_was_asked_for(
    part: Part, world: World, nats_server: NatsServer, valkey_server: ValkeyServer, postgres_server: PostgresServer
) -> None:
    clear = {"nats": nats_server, "redis": valkey_server, "postgres": postgres_server}[part.name]
    clear.start()
    url = part.url.replace(f":{part.server.port}", f":{clear.port}")
    with pytest.raises(Unavailable, match=r"TLS|SSL") as caught:
        part.use(url, ca=world.authority.ca)
    assert f"{HOST}:{clear.port}" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def speaks(front: TlsFront, version: ssl.TLSVersion) -> str | None:
    """What a client gets that takes this version and whatever is older."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
    with socket.create_connection((HOST, front.port), timeout=5) as plain:
        front.ask(plain)
        with context.wrap_socket(plain) as secure:
            return secure.version()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize("part", ["postgres", "redis"], indirect=True)
def test_a_server_that_speaks_old_tls_only_is_refused(part: Part, world: World) -> None:
    assert isinstance(part.server, TlsFront)
    part.server.speak_at_most(ssl.TLSVersion.TLSv1_1)
    try:
        assert speaks(part.server, ssl.TLSVersion.TLSv1_1) == "TLSv1.1"
        assert "TLS" in refused(part, ca=world.authority.ca)
    finally:
        part.server.speak_at_most(None)
    part.ask(ca=world.authority.ca)


def test_a_file_that_is_not_there_is_named_before_anything_is_asked(part: Part, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=rf"{part.name}\.ca \(FULCRUM_{part.name.upper()}_CA\): .*ca\.pem cannot be read"):
        part.ask(ca=tmp_path / "ca.pem")


def asked(server: RedisServer, *, again: str = "it is asked again in a moment") -> None:
    """Ask until it says something else than this."""
    deadline = time.monotonic() + 10
    while True:
        try:
            server.command("PING")
        except Unavailable as fault:
            if again not in str(fault) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def test_a_client_that_lives_on_follows_its_files(world: World, tmp_path: Path) -> None:
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    shutil.copy(world.authority.ca, ca)
    shutil.copy(world.stranger.cert, cert)
    shutil.copy(world.stranger.key, key)
    with ValkeyServer(tmp_path / "valkey") as valkey, TlsFront(valkey.port, world.good) as front:
        front.demand(ca)
        url = f"rediss://{HOST}:{front.port}"
        with closing(RedisServer(RedisConfig(url, timeout=5.0, ca=ca, cert=cert, key=key))) as server:
            with pytest.raises(Unavailable, match=r"redis\.cert"):
                server.command("PING")
            ca.unlink()
            with pytest.raises(Unavailable, match=r"ca\.pem cannot be read"):
                asked(server)
            shutil.copy(world.authority.ca, ca)
            shutil.copy(world.client.cert, cert)
            shutil.copy(world.client.key, key)
            asked(server, again="redis: ")


def test_sentinels_and_the_primary_they_name_are_spoken_to_over_tls_only(world: World, tmp_path: Path) -> None:
    ca = world.authority.ca
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(tmp_path / "valkey", password=PASSWORD))
        named = world.authority.issue("named", ("localhost",))
        primary = stack.enter_context(TlsFront(valkey.port, named, clear=True))  # for the sentinel, which has none
        where = ("localhost", primary.port)
        sentinel = stack.enter_context(Sentinel(tmp_path / "sentinel", valkey, seen_as=where, down_ms=60_000))
        front = stack.enter_context(TlsFront(sentinel.port, world.good))
        url = f"rediss+sentinel://:{PASSWORD}@{HOST}:{front.port}/fulcrum/0"
        ask_redis(url, 10.0, ca=ca)
        assert (front.accepted, primary.accepted) == (1, 1)
        for harmed, good in ((front, world.good), (primary, named)):
            harmed.show(world.bad["expired"])
            with pytest.raises(Unavailable, match="renew it on the server") as caught:
                ask_redis(url, 10.0, ca=ca)
            assert PASSWORD not in str(caught.value)
            harmed.show(good)
            harmed.demand(ca)
            with pytest.raises(Unavailable, match="FULCRUM_REDIS_CERT"):
                ask_redis(url, 10.0, ca=ca)
            ask_redis(url, 10.0, ca=ca, cert=world.client.cert, key=world.client.key)
            harmed.demand(None)
