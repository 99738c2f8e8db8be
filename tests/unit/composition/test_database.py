"""The way to Postgres is warned about once, with place and remedy, and only where nobody has chosen it."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fulcrum_mcp.composition import database
from fulcrum_mcp.settings import load

HOST = "db.example"


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    database._warn.cache_clear()
    monkeypatch.delenv("PGSSLMODE", raising=False)
    monkeypatch.setattr("fulcrum_adapters.postgres.upgrade.upgrade", lambda _config, **_: None)


def warned(tmp_path: Path, query: str = "", host: str = HOST) -> list[str]:
    url = f"postgresql://u:hunter2@{host}/f{query}"
    settings = load(None, environ={"HOME": str(tmp_path), "FULCRUM_POSTGRES_URL": url})
    with capture_logs() as lines:
        database.open_database(settings).close()
    assert "hunter2" not in str(lines)
    return [f"{line['place']} {line['reason']}" for line in lines if line["event"] == "postgres.unverified"]


def test_a_way_that_is_not_verified_is_warned_about_once_with_place_and_remedy(tmp_path: Path) -> None:
    (said,) = warned(tmp_path)
    assert said.startswith("db.example:5432/f sslmode=prefer: it goes in clear text where")
    assert "write sslmode=verify-full into postgres.url" in said
    assert warned(tmp_path) == []


@pytest.mark.parametrize(
    ("query", "host"), [("?sslmode=verify-full", HOST), ("?sslmode=disable", HOST), ("", "127.0.0.1")]
)
def test_what_is_safe_or_was_chosen_is_not(tmp_path: Path, query: str, host: str) -> None:
    assert warned(tmp_path, query, host) == []
