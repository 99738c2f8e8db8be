"""What typer finds wrong with how a command was used, told as every other error: what, where, what to do.

typer is asked by what its errors offer, not by their classes: those have moved between its versions.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from fulcrum_mcp.cli.output import clean

__all__ = ["UsageFault", "told"]

_GUESSED = re.compile(r"(.*)\.? Did you mean (?:one of: )?'?(.*?)'?(?:, .*)?\?", re.DOTALL)
_PLAIN = [
    (re.compile(pattern, re.DOTALL), said)
    for pattern, said in (
        (r"No such (option|command):? '?(.*?)'?", r'no \1 "\2"'),
        (r"Missing (?:argument|option|parameter) '?(.*?)'?", r"\1 is missing"),
        (r"Invalid value for '?(.*?)'?: Input should be (.*?)(?:, unable to parse.*)?", r"\1: must be \2"),
        (r"Invalid value for '?(.*?)'?: (.*)", r"\1: \2"),
        (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"too many arguments: \1"),
        (r"Option '?(.*?)'? (requires|does not take) (.*)", r"\1 \2 \3"),
    )
]


@runtime_checkable
class UsageFault(Protocol):
    """An error of typer."""

    exit_code: int

    def format_message(self) -> str:
        """What is wrong, in a sentence."""
        ...


def told(program: str, fault: UsageFault) -> str:
    """One line for a person; the help itself where a command was used without anything."""
    context: Any = getattr(fault, "ctx", None)
    where = program if context is None else context.command_path
    text = fault.format_message()
    if text.startswith("Usage:"):
        return text
    guessed = _GUESSED.match(text)
    possible: Sequence[str] = getattr(fault, "possibilities", None) or ()
    if guessed is not None:
        what, guess = guessed[1], guessed[2]
    elif possible:
        option = str(getattr(fault, "option_name", ""))
        what, guess = f"No such option: {option}", difflib.get_close_matches(option, possible, 1, 0.0)[0]
    else:
        what, guess = text, ""
    remedy = f'did you mean "{guess}"?' if guess else f"{where} --help tells how it is used"
    return clean(f"{where}: {_plain(what)}; {remedy}")


def _plain(text: str) -> str:
    text = text.removesuffix(".")
    for pattern, said in _PLAIN:
        found = pattern.fullmatch(text)
        if found is not None:
            return found.expand(said)
    return text[:1].lower() + text[1:]
