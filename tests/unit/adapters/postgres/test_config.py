import pytest

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_mcp.errors import Invalid

SECRET = "c4nary"


def test_the_password_shows_nowhere() -> None:
    config = PostgresConfig(f"postgresql://ful:{SECRET}@db.example:5433/fulcrum_metrics?sslmode=verify-full")
    assert SECRET not in repr(config) + str(config) + config.place
    assert config.place == "db.example:5433/fulcrum_metrics"
    assert config.secrets == (SECRET,)
    assert config.parameters()["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ful:{SECRET}@x@host/db",
        f"postgresql://ful:{SECRET}/x@host/db",
        f"postgresql://ful:x@host:{SECRET}/db",
        f"postgresql://ful:x@host/db?sslmode={SECRET}%",
        f"postgresql://ful:x@host/db?{SECRET}=1",
        f"postgresql+asyncpg://ful:{SECRET}@host/db",
        f"host=db password={SECRET}",
        f"host=db password='{SECRET}",
        "",
    ],
)
def test_a_url_that_is_wrong_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(Invalid, match="percent-encoded") as refused:
        PostgresConfig(url)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_several_hosts_and_a_socket_are_understood() -> None:
    assert PostgresConfig("postgresql://u@a:1,b:2/d?target_session_attrs=read-write").place == "a,b:1,2/d"
    assert PostgresConfig("postgresql:///d?host=/run/postgresql").place == "/run/postgresql:5432/d"
    assert PostgresConfig("postgres://u@[::1]:6/d").place == "::1:6/d"


@pytest.mark.parametrize(("pool", "timeout"), [(0, 5.0), (8, 0.0), (8, -1.0), (8, float("nan"))])
def test_limits_are_checked(pool: int, timeout: float) -> None:
    with pytest.raises(Invalid):
        PostgresConfig("postgresql://u@h/d", pool=pool, timeout=timeout)
