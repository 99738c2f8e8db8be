import subprocess
import sys
from pathlib import Path

import pytest
from conftest_cli import Run

from fulcrum_mcp.cli.dispatch import COMMANDS, Command, main
from fulcrum_mcp.errors import Conflict, FulcrumError, Invalid, NotFound, Unauthenticated, Unavailable, UpstreamFailed


def broken(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object) -> int:
        raise error

    monkeypatch.setattr("fulcrum_mcp.cli.dispatch._call", call)


def test_help_names_every_command_in_one_line_each(run: Run) -> None:
    said = run("--help")
    assert said.code == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in said.out
        assert command.help in said.out
    assert all(len(line) <= 100 for line in said.out.splitlines())
    assert run().code == 2


def test_help_imports_no_framework() -> None:
    code = (
        "import sys\nfrom fulcrum_mcp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(sys.modules.keys() & {'typer', 'pydantic', 'starlette', 'rich', 'sqlalchemy', 'mcp'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_sqlalchemy_is_not_imported_by_any_of_our_commands() -> None:
    code = (
        "import sys\nimport fulcrum_mcp.cli.keys, fulcrum_mcp.cli.budget, fulcrum_mcp.cli.servers\n"
        "import fulcrum_mcp.composition.local, fulcrum_mcp.api.rest\nprint('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_mistyped_command_gets_a_guess(run: Run) -> None:
    said = run("kyes", "list")
    assert (said.code, said.err) == (2, 'fulcrum: no command "kyes"; did you mean "fulcrum keys"?\n')


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("a.toml:1: x; y"), 2),
        (Unauthenticated("who"), 2),
        (NotFound("none"), 1),
        (Conflict("two"), 1),
        (Unavailable("down"), 3),
        (UpstreamFailed("gone", sent=False), 3),
    ],
)
def test_our_errors_are_one_line_and_a_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: FulcrumError, code: int
) -> None:
    broken(error, monkeypatch)
    said = run("keys", "list")
    assert (said.code, said.out, said.err) == (code, "", f"fulcrum keys: {error}\n")


def test_nothing_that_a_terminal_obeys_is_printed(run: Run) -> None:
    said = run("budget", "create", "--scope", "\x1b[31magent", "--calls", "1")
    assert (said.code, "\x1b" in said.err, "?[31magent" in said.err) == (2, False, True)
    assert "\x1b" not in run("\x1b[31m").err


def test_interruption_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(KeyboardInterrupt(), monkeypatch)
    assert run("keys", "list") == (130, "", "")


def test_a_fault_of_ours_is_one_line_with_an_id_that_the_log_knows(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken(RuntimeError("detail"), monkeypatch)
    said = run("keys", "list", "--data", str(tmp_path / "here"))
    assert said.code == 3
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    log = tmp_path / "here" / "fulcrum.log"
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert "RuntimeError: detail" in text
    assert next(word for word in said.err.replace(",", " ").split() if word.startswith("err_")) in text


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(RuntimeError("detail"), monkeypatch)
    monkeypatch.setenv("FULCRUM_DEBUG", "1")
    with pytest.raises(RuntimeError, match="detail"):
        main(["keys", "list"])


def test_a_command_is_a_module_and_a_name() -> None:
    for command in COMMANDS.values():
        assert isinstance(command, Command)
        module, colon, name = command.target.partition(":")
        assert (module.startswith("fulcrum_mcp.cli."), colon, name) == (True, ":", "app")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["budget", "create", "--scope", "agnt", "--usd", "1"], 'Did you mean "agent"?'),
        (["budget", "create", "--scope", "agent"], "no limit is given"),
        (["budget", "create", "--scope", "agent", "--usd", "-1"], "usd"),
        (["budget", "create", "--scope", "agent", "--calls", "many"], "calls"),
        (["budget", "create", "--scope", "agent", "--calls", "1", "--period", "dayly"], "not one of minute"),
        (["budget", "create", "--scope", "agent", "--rate", "fast"], "write N/PERIOD[:BURST]"),
        (["budget", "create", "--scope", "agent", "--calls", "1", "--timezone", "Mars/X"], "timezone"),
        (["budget", "create"], "--scope"),
        (["budget", "create", "--scop", "agent"], 'no option "--scop"'),
        (["budget", "drop"], 'no command "drop"'),
        (["keys", "create", ""], "name: must be 1 to 128"),
        (["keys", "create", "a", "--scope", "tool:cal"], 'Did you mean "tool:call"?'),
        (["keys", "create", "a", "--expires", "soon"], "not a span of time"),
        (["keys", "list", "--url", "ftp://x"], "not an http(s) address"),
        (["keys", "list", "--url", "http://x:y"], "not an address"),
        (["keys", "list", "--url", "http://127.0.0.1:1"], "set FULCRUM_API_KEY"),
        (["keys", "list", "--url", "http://127.0.0.1:1", "--data", "x"], "both given"),
        (["servers", "list"], "--config is missing"),
        (["servers", "list", "--config", "/nonexistent.toml"], "/nonexistent.toml: no such file"),
    ],
)
def test_wrong_use_is_told_with_the_remedy_and_code_2(run: Run, argv: list[str], said: str) -> None:
    found = run(*argv)
    assert found.code == 2
    assert said in found.err
    assert "Traceback" not in found.err
    assert found.out == ""


def test_what_is_not_there_has_code_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no Fulcrum has used this folder yet" in run("keys", "list").err
    monkeypatch.setenv("FULCRUM_API_KEY", "x" * 40)
    found = run("keys", "list", "--url", "http://127.0.0.1:1")
    assert (found.code, "does not answer" in found.err) == (3, True)
