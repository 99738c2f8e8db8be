"""How far a long operation is: on a terminal only, and nothing stays."""

import sys

import pytest

from fulcrum_mcp.cli.progress import progress


def test_a_terminal_sees_how_far_it_is_and_nothing_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress() as line:
        line.show("reading\x1b[2J the stream")
        assert list(line.count(range(9000), 10000)) == list(range(9000))
    said = capsys.readouterr().err
    assert said.startswith("\r\x1b[Kreading?[2J the stream\r\x1b[K4,096 ")
    assert " of 10,000\r\x1b[K8,192 " in said
    assert said.endswith("\r\x1b[K")


def test_a_file_or_a_pipe_gets_none_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as line:
        line.show("reading the stream")
        assert len(list(line.count(range(5000)))) == 5000
    assert capsys.readouterr().err == ""


def test_the_line_is_taken_away_also_when_it_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def fails() -> None:
        with progress() as line:
            line.show("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert capsys.readouterr().err == "\r\x1b[Khalf\r\x1b[K"
