"""Admission: no policy is evaluated in the gateway before it has been in a process that may be killed.

An evaluation cannot be interrupted and a policy can end its process (recursion, memory). So a changed set is first
parsed, compiled, and evaluated there against its own tests and against inputs made to be expensive, under a limit of
time, memory and processor time. What does not come through is refused by name, and the old set stays. So is what
would keep gateways from their calls while they compile it.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import regorus

from fulcrum_adapters.rego.analysis import POLICIES, PolicySet
from fulcrum_adapters.rego.cases import Case
from fulcrum_adapters.rego.folder import starter
from fulcrum_adapters.rego.library import starter_names
from fulcrum_adapters.rego.loading import InvalidPolicy, compile_source, parse_source
from fulcrum_adapters.rego.testing import Suite, beside, run_suite
from fulcrum_adapters.rego.worst import worst_inputs
from fulcrum_mcp.core.policy import PolicySource, Problem
from fulcrum_mcp.core.verdict import PHASE_RULES

__all__ = ["admit"]

_MEMORY = 1 << 30
_EACH = 0.25
"""Seconds of processor time that one rule may take for one input."""

_MODULE = 0.5
"""Seconds of processor time for reading one module: while the engine reads it, nothing else runs in a gateway."""

_SET = 1.0
"""The same for all modules together: every worker of every gateway reads them again when they are changed."""

_READY = 0.25
"""Seconds of processor time for making the engine of the whole set, data included, on each gateway's event loop."""

_SHARE = 0.01
"""Seconds of processor time that a set is given for each evaluation, on top of its `timeout`."""

_PATIENCE = 5
"""How many times its processor time a set may take by the clock: a busy machine is not the policy's fault."""


def admit(source: PolicySource, suite: Suite | None = None, *, timeout: float = 2.0) -> None:
    """Return when `source` may be used; raise `InvalidPolicy` with its problems when not.

    `timeout` seconds of processor time bound each stage. Blocks: call it in a worker thread. Its subprocess never
    outlives it. A starter as it came has been tried before and is not tried again, unless `suite` is given.
    """
    if suite is None and _is_shipped(source):
        return
    suite = suite or Suite()
    sources = [
        source,
        *(beside(source, names) for names in sorted({case.beside for case in suite.cases if case.beside})),
    ]
    _parse(source, suite, timeout)
    for each in sources:
        policies = compile_source(each).policies
        cases = [case for case in suite.cases if beside(source, case.beside).modules == each.modules]
        _judge(each, policies, cases, timeout)
    if suite.modules:
        _judge_tests(source, suite, timeout)
    result = run_suite(source, suite)
    problems = [
        Problem(rule.path, rule.line, 1, f"{rule.name} fails: {rule.fault}") for rule in result.rules if not rule.passed
    ]
    problems.extend(
        Problem(found.case.path, 0, 0, f"case {found.case.name!r} fails: {'; '.join(found.faults)}")
        for found in result.cases
        if found.faults
    )
    if problems:
        raise InvalidPolicy(problems)


def _is_shipped(source: PolicySource) -> bool:
    """A starter as it came: tried when it was released, so that a start without policies of one's own is quick."""
    if source.name not in starter_names():
        return False
    shipped = starter(source.name)
    return source.modules == shipped.modules and source.data == shipped.data


def _parse(source: PolicySource, suite: Suite, timeout: float) -> None:
    modules = [[module.path, module.source] for module in (*source.modules, *suite.modules)]
    said, end = _run({"stage": "parse", "modules": modules}, timeout)
    if end:  # what the child merely reports is said better by the parent's own compilation
        path = str(said[-1].get("begin", source.name)) if said else source.name
        raise InvalidPolicy([Problem(path, 0, 0, f"cannot be parsed: the engine {end}", "simplify it")], fatal=True)
    _bound_reading(source, said)


def _bound_reading(source: PolicySource, said: list[dict[str, Any]]) -> None:
    """Refuse modules, and sets of them, that take too long to read. Tests stay where they were published."""
    own = {module.path for module in source.modules}
    took = {str(line["read"]): float(line["seconds"]) for line in said if line.get("read") in own}
    slow = [
        Problem(
            path,
            0,
            0,
            f"takes {seconds:.2f} s of processor time to be read; {_MODULE} s are allowed for one module",
            "divide it into several modules, and put long tables into data",
        )
        for path, seconds in took.items()
        if seconds > _MODULE
    ]
    if not slow and (whole := sum(took.values())) > _SET:
        message = f"its {len(took)} modules take {whole:.2f} s of processor time to be read; {_SET} s are allowed"
        slow = [Problem(source.name, 0, 0, message, "take rules away, and put long tables into data")]
    if slow:
        raise InvalidPolicy(slow)


def _judge(source: PolicySource, policies: PolicySet, cases: list[Case], timeout: float) -> None:
    work: list[Any] = []
    worst = worst_inputs(policies)
    for phase in PHASE_RULES:
        rules = [
            (f"policy {name}", f"data.{POLICIES}{name}.{rule}")
            for name in policies.policies
            for rule in policies.asked(name, phase)
        ]
        own = [(f"case {case.name!r}", case.document.decode()) for case in cases if case.phase == phase]
        if rules:
            work.append((rules, [*own, *worst[phase]]))
    _evaluate(source, {module.path: module.source for module in source.modules}, work, timeout)


def _judge_tests(source: PolicySource, suite: Suite, timeout: float) -> None:
    """The test rules, which `run_suite` then runs again here to see whether they pass."""
    modules = {module.path: module.source for module in (*source.modules, *suite.modules)}
    tests = PolicySource(tuple(suite.modules))
    rules = [(f"test {rule}", rule) for rule in _test_rules(tests)]
    if rules:
        _evaluate(source, modules, [(rules, [("no input", "{}")])], timeout)


def _test_rules(tests: PolicySource) -> list[str]:
    modules, problems = parse_source(tests)
    if problems:
        raise InvalidPolicy(problems)
    return sorted({rule.path for module in modules for rule in module.rules if rule.name.startswith("test_")})


def _evaluate(source: PolicySource, modules: dict[str, str], work: list[Any], timeout: float) -> None:
    job = {"stage": "judge", "modules": list(modules.items()), "data": source.data, "work": work, "each": _EACH}
    said, end = _run(job, timeout)
    at: dict[str, Any] = {}
    for line in said:
        if "begin" in line:
            at = line
        elif line.get("ready", 0.0) > _READY:
            message = f"takes {line['ready']:.2f} s of processor time to be taken into use; {_READY} s are allowed"
            raise InvalidPolicy([Problem(source.name, 0, 0, message, "take rules or data away")])
        elif line.get("panicked"):
            raise InvalidPolicy([_refusal(source, at, str(line["fault"]))])
    if end:
        raise InvalidPolicy([_refusal(source, at, f"the engine {end}")])


def _refusal(source: PolicySource, at: dict[str, Any], what: str) -> Problem:
    rule = str(at.get("rule", ""))
    package = ".".join(rule.split(".")[1:-1])
    path, line = source.name, 0
    for module in source.modules:
        for number, text in enumerate(module.source.splitlines(), 1):
            if package and text.split("#")[0].split() == ["package", package]:
                path, line = module.path, number
    tried = f" on {at['input']}" if "input" in at else ""
    message = f"{at.get('begin', 'the policy set')}, rule {rule.rsplit('.', 1)[-1] or '?'}{tried}: {what}"
    return Problem(path, line, 1 if line else 0, message, "bound the work that an input can cause")


def _run(job: dict[str, Any], timeout: float) -> tuple[list[dict[str, Any]], str]:
    """What the child said, and how it ended ("" when it came to its end)."""
    folders = [str(Path(__file__).parent), str(Path(regorus.__file__).parents[1])]
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_child.py")), *folders]
    evaluations = sum(len(rules) * len(documents) for rules, documents in job.get("work", ()))
    seconds = math.ceil(timeout + _SHARE * evaluations)
    job |= {"memory": _MEMORY, "seconds": seconds}
    with subprocess.Popen(  # noqa: S603 - our own script
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as child:
        try:
            out, _ = child.communicate(json.dumps(job).encode(), timeout=seconds * _PATIENCE)
            end = "" if child.returncode == 0 else _ending(child.returncode)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
            end = f"did not finish within {seconds * _PATIENCE} s"
        finally:
            child.kill()
    said = [
        json.loads(line)
        for line in out.decode(errors="replace").splitlines()
        if line.startswith("{") and line.endswith("}")
    ]
    return said, "" if said and said[-1].get("done") else (end or "ended early")


def _environment() -> dict[str, str]:
    """What the interpreter needs to start, and none of the gateway's secrets."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
    return {"RUST_BACKTRACE": "0", **{name: os.environ[name] for name in kept if name in os.environ}}


def _ending(code: int) -> str:
    if code == -11:  # noqa: PLR2004 - SIGSEGV
        return "overflowed its stack"
    if code in {-9, -24}:
        return "used up its processor time"
    if code == -27:  # noqa: PLR2004 - SIGPROF
        return f"took more than {_EACH} s of processor time"
    if code == -6:  # noqa: PLR2004 - SIGABRT
        return "ran out of memory"
    return f"ended with {code}"
