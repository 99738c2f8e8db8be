"""The addresses of Postgres, Redis and NATS, and what telemetry is told: from file and environment, never shown."""

from pathlib import Path
from typing import Any

import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings, load

HOME = {"HOME": "/nowhere"}
PEM = "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQ\\n-----END PRIVATE KEY-----"


def told(**variables: str) -> Settings:
    return load(None, environ={**HOME, **variables})


def test_parts_are_named_by_the_environment_and_their_passwords_never_shown() -> None:
    settings = told(
        FULCRUM_POSTGRES_URL="postgresql://fulcrum:hunter2@db:5432/fulcrum_metrics",
        FULCRUM_POSTGRES_POOL="3",
        FULCRUM_POSTGRES_MIGRATE="false",
        FULCRUM_REDIS_URL="redis+sentinel://a:26379,b:26379/main/0",
        FULCRUM_REDIS_TIMEOUT="0.25",
        FULCRUM_NATS_URL="nats://token@a:4222,nats://token@b:4222",
        FULCRUM_NATS_SYNC_ALWAYS="1",
        FULCRUM_NATS_MAX_BYTES="1048576",
        FULCRUM_TELEMETRY_OTLP_ENDPOINT="http://collector:4318",
        FULCRUM_TELEMETRY_METRICS="127.0.0.1:9464",
        FULCRUM_AUDIT_SIGNING_KEY=PEM,
        FULCRUM_AUDIT_MAC_KEY="0123456789abcdef0123456789abcdef",
    )
    assert settings.postgres is not None
    assert settings.redis is not None
    assert settings.nats is not None
    assert (settings.postgres.pool, settings.postgres.migrate, settings.redis.timeout) == (3, False, 0.25)
    assert settings.nats.sync_always
    assert settings.nats.max_bytes == 1 << 20
    assert str(settings.telemetry.metrics) == "127.0.0.1:9464"
    assert settings.audit_signing_key is not None
    assert settings.audit_signing_key.get_secret_value().count("\n") == 3
    for secret in ("hunter2", "token@", "MC4CAQ", "0123456789abcdef"):
        assert secret not in repr(settings)


def test_parts_are_named_by_the_file(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("postgresql://u:p@db/f\n")
    file = tmp_path / "fulcrum.toml"
    file.write_text('[nats]\nurl = "tls://n:4222"\nreplicas = 3\n[redis]\nurl = "rediss://r:6380/1"\nprefix = "x:"\n')
    settings = load(file, environ={**HOME, "FULCRUM_POSTGRES_URL_FILE": str(tmp_path / "db")})
    assert settings.nats is not None
    assert settings.redis is not None
    assert settings.postgres is not None
    assert (settings.nats.replicas, settings.redis.prefix) == (3, "x:")
    assert settings.postgres.url.get_secret_value() == "postgresql://u:p@db/f"


def test_files_are_found_beside_the_file_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "fulcrum.toml"
    file.write_text(
        '[nats]\nurl = "tls://n"\nca = "ca.pem"\ncredentials = "c.creds"\n'
        '[redis]\nurl = "rediss://r"\nca = "/abs.pem"\n'
    )
    settings = load(file, environ={**HOME, "FULCRUM_NATS_CERT": "here.pem", "FULCRUM_NATS_KEY": "here.key"})
    assert settings.nats is not None
    assert settings.redis is not None
    assert (settings.nats.ca, settings.nats.credentials) == (tmp_path / "ca.pem", tmp_path / "c.creds")
    assert (settings.nats.cert, settings.nats.key) == (Path("here.pem"), Path("here.key"))
    assert (settings.redis.ca, settings.redis.cert) == (Path("/abs.pem"), None)


@pytest.mark.parametrize(
    "url", ["postgresql://u:a,b@one/f", "postgres://u:p@one:5432,two:5433/f?target_session_attrs=any"]
)
def test_one_scheme_stands_before_all_hosts_of_postgres(url: str) -> None:
    settings = told(FULCRUM_POSTGRES_URL=url)
    assert settings.postgres is not None
    assert settings.postgres.url.get_secret_value() == url


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FULCRUM_POSTGRES_URL": "mysql://u:hunter2@h"}, "FULCRUM_POSTGRES_URL: [postgres] url must begin with"),
        (
            {"FULCRUM_NATS_URL": "nats://n", "FULCRUM_NATS_MAX_BYTES": "1024"},
            "FULCRUM_NATS_MAX_BYTES: [nats] max_bytes",
        ),
        ({"FULCRUM_POSTGRES_URL": "db"}, "FULCRUM_POSTGRES_URL: [postgres] url must begin with"),
        ({"FULCRUM_REDIS_URL": "http://h"}, "FULCRUM_REDIS_URL: [redis] url must begin with redis://"),
        ({"FULCRUM_NATS_URL": "nats://a,http://b"}, "FULCRUM_NATS_URL: [nats] url must begin with nats://"),
        (
            {"FULCRUM_REDIS_URL": "rediss://h", "FULCRUM_REDIS_KEY": "-----BEGIN PRIVATE KEY-----\nhunter2"},
            "FULCRUM_REDIS_KEY: must be the path of a PEM file",
        ),
        ({"FULCRUM_NATS_URL": "tls://h", "FULCRUM_NATS_CA": "~nobody-here/ca"}, "no home folder is known"),
        ({"FULCRUM_POSTGRES_CA": "ca.pem"}, '[postgres] key "url" is missing'),
        ({"FULCRUM_POSTGRES_POOL": "3"}, '[postgres] key "url" is missing'),
        ({"FULCRUM_POSTGRES_MIGRATE": "maybe"}, "FULCRUM_POSTGRES_MIGRATE: must be true or false"),
        ({"FULCRUM_TELEMETRY_TRACES": "2"}, "FULCRUM_TELEMETRY_TRACES: [telemetry] traces: must be less than"),
        ({"FULCRUM_TELEMETRY_TRACES": "x"}, "FULCRUM_TELEMETRY_TRACES: must be a number from 0 to 1"),
        ({"FULCRUM_TELEMETRY_OTLP_ENDPOINT": "h:4318"}, "otlp_endpoint is not a http(s) URL"),
        ({"FULCRUM_AUDIT_SIGNING_KEY": "abc"}, "FULCRUM_AUDIT_SIGNING_KEY: not a private key in PEM form"),
        ({"FULCRUM_AUDIT_MAC_KEY": "short"}, "FULCRUM_AUDIT_MAC_KEY: too weak"),
    ],
)
def test_each_mistake_names_its_place_and_no_secret(variables: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        told(**variables)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
