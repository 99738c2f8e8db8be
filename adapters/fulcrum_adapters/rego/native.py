"""The only module that imports `regorus`: its engine behind a few functions that fail in known ways.

What an engine raises is either `RegoFault` (the policy's doing, with its place) or a panic, which pyo3 makes a
`BaseException` and which leaves that engine unusable. Everything is evaluated by the interpreter: the `Rvm` class of
the same package allows where an error should deny. This file is also loaded alone by the admission subprocess, so it
imports the standard library and `regorus` only.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar

os.environ.setdefault("RUST_LIB_BACKTRACE", "0")  # the engine's errors would carry native stacks, at 100 times the cost

import regorus

__all__ = [
    "UNDEFINED",
    "NativeEngine",
    "RegoFault",
    "build",
    "building",
    "evaluate",
    "finished",
    "guarded",
    "query",
    "syntax_trees",
    "translated",
]

NativeEngine = Any
"""`regorus.Engine`: usable on the thread that made it only."""

UNDEFINED = '"<undefined>"'
"""What `eval_rule_as_json` answers for a rule without a value; a rule may also yield this very string."""

_PLACE = re.compile(r"\s*--> (?P<path>.*?):(?P<line>\d+):(?P<column>\d+)\n")
_MESSAGE = re.compile(r"^error: (?P<message>.*?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)
_LET_THROUGH = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
_MAX_COLUMNS = 4096
_MAX_LINES = 50_000
_MAX_BYTES = 1 << 20

Result = TypeVar("Result")


class RegoFault(Exception):
    """A policy cannot be compiled or evaluated. `line` and `column` are 1-based, 0 when unknown.

    `panicked` says that the engine it happened in must not be used again.
    """

    def __init__(self, message: str, path: str = "", line: int = 0, column: int = 0, *, panicked: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.line = line
        self.column = column
        self.panicked = panicked

    def __str__(self) -> str:
        """The place, when it is known, and what is wrong there."""
        return f"{self.path}:{self.line}:{self.column}: {self.message}" if self.line else self.message


def guarded(step: Callable[[], Result]) -> Result:
    """Run one step inside the engine; whatever it raises becomes a `RegoFault`, except the wish to stop."""
    try:
        return step()
    except BaseException as exc:  # noqa: BLE001 - a panic is one
        raise translated(exc) from None


def translated(exc: BaseException) -> RegoFault:
    """The fault that something raised by the engine is; raises it again when it is the wish to stop."""
    if isinstance(exc, _LET_THROUGH):
        raise exc
    if isinstance(exc, RegoFault):
        return exc
    if isinstance(exc, Exception):
        return fault_of(exc)
    return RegoFault(f"the engine panicked: {_first_line(str(exc))}", panicked=True)


def fault_of(exc: Exception) -> RegoFault:
    """The place and the message of an engine's error, without its native stack."""
    text = str(exc).split("\n\nStack backtrace:", 1)[0]
    place = _PLACE.match(text)
    message = _MESSAGE.search(text)
    said = " ".join(message["message"].split()) if message else _first_line(text)
    if place is None:
        return RegoFault(said)
    return RegoFault(said, place["path"], int(place["line"]), int(place["column"]))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown fault")[:500]


def build(
    modules: Iterable[tuple[str, str]], data: Mapping[str, Any], *, coverage: bool = False, evaluate_once: bool = True
) -> NativeEngine:
    """An engine that holds `modules` (path, source) and `data`. Raises `RegoFault`, or what `json.dumps` raises.

    It is evaluated once here: a clone of an engine that never was prepares itself anew each time.
    """
    return finished(building(modules, data, coverage=coverage, evaluate_once=evaluate_once))


def finished(steps: Generator[None, None, Result]) -> Result:
    """What the steps come to when all are taken at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def building(
    modules: Iterable[tuple[str, str]], data: Mapping[str, Any], *, coverage: bool = False, evaluate_once: bool = True
) -> Generator[None, None, NativeEngine]:
    """`build` in steps, one for each module and three more; to be taken on one thread."""
    document = json.dumps(data, allow_nan=False) if data else ""
    try:
        engine = vars(regorus)["Engine"]()
        engine.set_policy_length_config(max_col=_MAX_COLUMNS, max_file_bytes=_MAX_BYTES, max_lines=_MAX_LINES)
        engine.set_gather_prints(True)
        for path, source in modules:
            engine.add_policy(path, source)
            yield
        yield
        if document:
            engine.add_data_json(document)
        yield
        if coverage:
            engine.set_enable_coverage(True)
        if evaluate_once:
            engine.set_input_json("{}")
            engine.eval_query_as_json("1")
    except BaseException as exc:  # noqa: BLE001 - a panic is one
        raise translated(exc) from None
    return engine


def evaluate(engine: NativeEngine, rule: str) -> tuple[bool, Any]:
    """(defined, value) of a rule by its full path, e.g. `data.fulcrum.policies.mine.cost`. Raises `RegoFault`."""
    raw = guarded(lambda: engine.eval_rule_as_json(rule))
    if raw == UNDEFINED and guarded(lambda: engine.eval_rule(rule)) is None:
        return False, None
    return True, json.loads(raw)


def query(engine: NativeEngine, text: str) -> Any:
    """The answer to a whole query, as the engine's JSON says it: `{"result": [{"bindings", "expressions"}]}`."""
    return json.loads(guarded(lambda: engine.eval_query_as_json(text)))


def syntax_trees(engine: NativeEngine) -> list[dict[str, Any]]:
    """`{"source": {"file", "contents"}, "ast": ...}` of every module, in the order they were added."""
    trees: list[dict[str, Any]] = json.loads(guarded(engine.get_ast_as_json))
    return trees
