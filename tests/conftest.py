"""The real servers, for every test that asks for one; and logs that no test leaves configured for the next."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

pytest_plugins = ["servers.fixtures", "postgres_rig"]


@pytest.fixture(autouse=True)
def plain_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that run in this process configure logging, and loggers keep what they first met."""
    configure = structlog.configure

    def forgetful(**options: Any) -> None:
        options["cache_logger_on_first_use"] = False
        configure(**options)

    monkeypatch.setattr(structlog, "configure", forgetful)
    yield
    structlog.reset_defaults()


@pytest.fixture
def progress(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Puts a line on the terminal at once: how far a test of many minutes has come."""

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    return say
