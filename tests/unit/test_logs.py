"""Logging never harms what it tells about."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from fulcrum_mcp import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_closed_standard_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    logs.configure("warning", json=True)
    closed.close()
    structlog.get_logger("test").error("told to nobody")


def test_lines_go_to_the_standard_error_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure("warning", json=True)
    logger = structlog.get_logger("test")
    now = io.StringIO()
    monkeypatch.setattr(sys, "stderr", now)
    logger.warning("told", reason="why")
    logger.info("not told at this level")
    assert '"event": "told"' in now.getvalue()
    assert "not told" not in now.getvalue()


def test_line_of_a_worker_says_whose_it_is_unless_it_is_about_another(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure("warning", json=True, worker=2)
    now = io.StringIO()
    monkeypatch.setattr(sys, "stderr", now)
    structlog.get_logger("test").warning("mine")
    structlog.get_logger("test").warning("of another", worker=1)
    lines = [json.loads(line) for line in now.getvalue().splitlines()]
    assert [(line["event"], line["worker"]) for line in lines] == [("mine", 2), ("of another", 1)]


def test_what_libraries_tell_is_a_line_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure("warning", json=True, worker=3)
    now = io.StringIO()
    monkeypatch.setattr(sys, "stderr", now)
    library = logging.getLogger("uvicorn.error")
    library.warning("Invalid %s\nreceived", "request")
    library.info("not told")
    library.error("it failed", exc_info=ValueError("why"))
    first, second = (json.loads(line) for line in now.getvalue().splitlines())
    assert (first["event"], first["logger"], first["level"], first["worker"]) == (
        "Invalid request\nreceived",
        "uvicorn.error",
        "warning",
        3,
    )
    assert (second["event"], second["level"]) == ("it failed", "error")
    assert "ValueError: why" in second["exception"]
