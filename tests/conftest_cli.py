"""Run `fulcrum` in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fulcrum_mcp.cli import main

__all__ = ["Ran", "Run", "run"]


class Ran(NamedTuple):
    code: object
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in ("FULCRUM_URL", "FULCRUM_API_KEY", "FULCRUM_ADMIN_KEY", "FULCRUM_CONFIG", "FULCRUM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FULCRUM_DATA", str(tmp_path / "data"))

    def act(*argv: str) -> Ran:
        with pytest.raises(SystemExit) as left:
            main(argv)
        said = capsys.readouterr()
        return Ran(left.value.code, said.out, said.err)

    return act
