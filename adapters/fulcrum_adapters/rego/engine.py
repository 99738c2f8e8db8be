"""The policy engine: regorus in process, one clone of a warmed engine for each evaluation.

Nothing a policy does may end or mislead the process: see `native` for what its faults become, `core.verdict` for what
their values may be. An evaluation cannot be interrupted and holds the interpreter's lock: policies come here through
`admission`, which refuses those that take too long.
"""

import asyncio
import json
import re
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from fulcrum_adapters.rego.analysis import POLICIES
from fulcrum_adapters.rego.loading import Analysed, Compiled, analyse_source, making
from fulcrum_adapters.rego.native import UNDEFINED, NativeEngine, RegoFault, finished, guarded, translated
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo, PolicySource
from fulcrum_mcp.core.verdict import PHASE_RULES, verdict_of

__all__ = ["MAX_INPUT", "RegoEngine"]

MAX_INPUT = 256 * 1024
"""Bytes of an input document; what is larger is not judged and so denied."""

_EMPTY = "[]"

_KNOWN = 64
_SHORT = 512
"""How many verdicts of one policy are kept by their words, and how long (characters) those may be."""

_NAMED = re.compile(r"(?:[^`]|`[A-Za-z_][A-Za-z_.]*`)*")
"""A message up to the first thing it quotes that is no plain name, which may be a value that was judged."""

_FOLDER = re.compile(r"[^\s`]*/(?=[^\s/`]+\.rego\b)")


_own = threading.local()
"""`families` of this thread: (whose, compiled). Whoever drops a `RegoEngine`, its parts end where they began."""


class _Plan:
    """What is asked of one policy in one phase, with the verdicts that most calls have made beforehand."""

    __slots__ = ("allow", "allowed", "known", "name", "revision", "rules", "silent")

    def __init__(self, name: str, revision: str, asked: Mapping[str, bool]) -> None:
        root = f"data.{POLICIES}{name}"
        self.name = name
        self.revision = revision
        self.allow = f"{root}.allow" if "allow" in asked else ""
        self.rules = tuple((rule, f"{root}.{rule}", plain) for rule, plain in asked.items() if rule != "allow")
        self.silent = Verdict(name, revision)
        self.allowed = Verdict(name, revision, allow=True)
        self.known: dict[tuple[Any, ...], Verdict] = {}
        """What the engine said before, and the verdict it made: a price says the same of most calls."""


class RegoEngine:
    """`PolicyEngine` over one set of policies. Raises `Invalid` (with `problems`) when built from a broken one.

    An engine of regorus works on one thread only. The one that builds this compiles at once; any other thread that
    evaluates makes a family of its own at its first evaluation. With `between` nothing native is kept by the thread
    that builds this; it is called before each module, and may raise. The thread that evaluates awaits `ready` first.
    """

    info: PolicyInfo

    def __init__(
        self,
        source: PolicySource,
        *,
        max_input: int = MAX_INPUT,
        coverage: bool = False,
        between: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._coverage = coverage
        self.last: NativeEngine | None = None
        """With `coverage`: the engine of the last evaluation, for its report."""
        self._max_input = max_input
        self._threads = threading.local()
        self._analysed = analyse_source(source) if between is None else analyse_source(source, between)
        if between is None:
            self._family()
        self.info = self._analysed.policies.info(self._analysed.revision)
        self._plans = {phase: _plans(self._analysed, phase) for phase in PHASE_RULES}

    async def ready(self) -> None:
        """Make what this thread evaluates with; others have their turn between two modules. Raises `InvalidPolicy`."""
        steps = making(self._source, self._analysed, coverage=self._coverage)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                self._keep(end.value)
                return
            await asyncio.sleep(0)

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """One verdict per policy, in the order of `info.names`. Never raises for what a policy does."""
        return self.judge(phase, document)

    def judge(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """`evaluate`, for callers without an event loop."""
        plans = self._plans[phase]
        if len(document) > self._max_input:
            return _all_fail(plans, f"the input is {len(document)} bytes long; policy.max_input is {self._max_input}")
        try:
            text = document.decode()
            engine = self._fresh(text)
        except (RegoFault, UnicodeDecodeError) as exc:
            return _all_fail(plans, f"the policy engine cannot read the input: {exc}")
        verdicts: list[Verdict] = []
        for plan in plans:
            if engine is None:
                engine = self._fresh(text)
            try:
                verdicts.append(_ask(engine, plan, phase))
            except RegoFault as fault:
                engine = None
                verdicts.append(Verdict(plan.name, plan.revision, error=f"the policy failed: {_said(fault)}"))
        return tuple(verdicts)

    def _family(self) -> Compiled:
        try:
            compiled: Compiled = self._threads.compiled
        except AttributeError:
            steps = making(self._source, self._analysed, coverage=self._coverage)
            compiled = self._keep(finished(steps))
        return compiled

    def _keep(self, compiled: Compiled) -> Compiled:
        self._threads.compiled = compiled
        families = [pair for pair in getattr(_own, "families", ()) if pair[0]() is not None]
        _own.families = [*families, (weakref.ref(self), compiled)]
        return compiled

    def _fresh(self, text: str) -> NativeEngine:
        engine = self._family().engine.clone()
        guarded(lambda: engine.set_input_json(text))
        if self._coverage:
            self.last = engine
        return engine


def _said(fault: RegoFault) -> str:
    """What agents may read of a fault: no folder of the operator's, no value that was judged."""
    named = _NAMED.match(fault.message)
    told = named[0] if named else ""
    message = _FOLDER.sub("", told + ("..." if len(told) < len(fault.message) else ""))
    return f"{PurePath(fault.path).name}:{fault.line}: {message}" if fault.line else message


def _plans(analysed: Analysed, phase: Phase) -> tuple[_Plan, ...]:
    policies = analysed.policies
    return tuple(_Plan(name, analysed.revisions[name], policies.asked(name, phase)) for name in policies.policies)


def _all_fail(plans: tuple[_Plan, ...], error: str) -> tuple[Verdict, ...]:
    return tuple(Verdict(plan.name, plan.revision, error=error) for plan in plans)


def _ask(engine: NativeEngine, plan: _Plan, phase: Phase) -> Verdict:
    """Evaluate the rules of one policy. Only text that is exactly `true` allows without a further look."""
    try:
        allow = engine.eval_rule_as_json(plan.allow) if plan.allow else UNDEFINED
        said = _others(engine, plan)
    except BaseException as exc:  # noqa: BLE001 - a panic is one
        raise translated(exc) from None
    if not said:
        if allow == "true":
            return plan.allowed
        if allow in {"false", UNDEFINED}:
            return plan.silent
    words = (phase, allow, *said)
    known = plan.known.get(words)
    if known is None:
        values = {rule: json.loads(raw) for rule, raw in said}
        if allow not in {"false", UNDEFINED}:
            values["allow"] = json.loads(allow)
        known = verdict_of(plan.name, plan.revision, values, phase)
        if len(plan.known) < _KNOWN and sum(len(raw) for _, raw in said) < _SHORT:
            plan.known[words] = known
    return known


def _others(engine: NativeEngine, plan: _Plan) -> list[tuple[str, str]]:
    """The rules besides `allow` that say something, each with its JSON text."""
    said: list[tuple[str, str]] = []
    for rule, path, plain in plan.rules:
        raw = engine.eval_rule_as_json(path)
        if raw == _EMPTY and plain:
            continue
        if raw == UNDEFINED and (plain or engine.eval_rule(path) is None):
            continue
        said.append((rule, raw))
    return said
