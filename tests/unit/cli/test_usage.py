"""Whatever typer finds wrong is one line of the project's form, and names the remedy."""

from typing import Any

import pytest
from conftest_cli import Run

from fulcrum_mcp.cli.usage import UsageFault, told


@pytest.mark.parametrize(
    ("line", "where", "what", "guess"),
    [
        ("demo --nope", "demo", 'no option "--nope"', ""),
        ("audit query --limt 3", "audit query", 'no option "--limt"', "--limit"),
        ("keys cretae x", "keys", 'no command "cretae"', "create"),
        ("keys xyzzy", "keys", 'no command "xyzzy"', ""),
        ("keys create", "keys create", "name is missing", ""),
        ("wrap", "wrap", "-- COMMAND [ARGS]... is missing", ""),
        ("budget create --calls 1", "budget create", "--scope is missing", ""),
        ("up --config", "up", "--config requires an argument", ""),
        ("up surplus it's", "up", "too many arguments: surplus it's", ""),
        ("up --workers x", "up", "--workers: must be a valid integer", ""),
        ("audit query --limit 0", "audit query", "--limit: must be greater than or equal to 1", ""),
    ],
)
def test_it_is_one_line_with_place_and_remedy(run: Run, line: str, where: str, what: str, guess: str) -> None:
    remedy = f'did you mean "{guess}"?' if guess else f"fulcrum {where} --help tells how it is used"
    ran = run(*line.split())
    assert (ran.code, ran.out, ran.err) == (2, "", f"fulcrum {where}: {what}; {remedy}\n")


def test_nothing_that_a_terminal_obeys_gets_through(run: Run) -> None:
    ran = run("up", "--\x1b[31mred\nfulcrum: all is well")
    assert ran.code == 2
    assert "\x1b" not in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_group_without_a_command_tells_what_there_is(run: Run) -> None:
    ran = run("keys")
    assert ran.code == 2
    assert "Usage: fulcrum keys" in ran.err
    assert "revoke" in ran.err


class Fault(Exception):
    exit_code = 2

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.__dict__ |= more

    def format_message(self) -> str:
        return str(self)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("Something new."), "fulcrum x: something new; fulcrum x --help tells how it is used"),
        (Fault("Invalid value for '--log': 'a b' is odd"), "fulcrum x: --log: 'a b' is odd; fulcrum x --help tells"),
        (
            Fault("No such command 'lst'. Did you mean one of: 'list', 'last'?"),
            'no command "lst"; did you mean "list"?',
        ),
        (
            Fault(
                "No such option: --sco (Possible options: --scope, --score)",
                option_name="--sco",
                possibilities=["--score", "--scope"],
            ),
            'no option "--sco"; did you mean "--sco',
        ),
    ],
)
def test_other_versions_words_are_told_in_ours(fault: Fault, said: str) -> None:
    assert isinstance(fault, UsageFault)
    assert said in told("fulcrum x", fault)
