"""From source to a compiled set, or to the list of everything that is wrong with it.

What OPA refuses when it compiles and this engine would meet only while it judges (unknown functions, recursion, which
even ends the process) is found here, before anything is evaluated.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fulcrum_adapters.rego.analysis import POLICIES, PolicySet
from fulcrum_adapters.rego.builtins import OFFERED, REFUSED
from fulcrum_adapters.rego.native import NativeEngine, RegoFault, build, building, finished, syntax_trees
from fulcrum_adapters.rego.syntax import ModuleSyntax, RuleSyntax, parse_module, plain_column
from fulcrum_mcp.core.policy import PolicySource, Problem
from fulcrum_mcp.core.verdict import RULES
from fulcrum_mcp.errors import Invalid

__all__ = [
    "INPUT_NAMES",
    "Analysed",
    "Compiled",
    "InvalidPolicy",
    "analyse_source",
    "compile_source",
    "describe",
    "find_problems",
    "making",
    "parse_source",
]

INPUT_NAMES = (
    *("phase", "method", "principal", "server", "tool", "resource", "prompt", "arguments", "result", "context"),
    *("history", "budget"),
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MISSING = re.compile(r"could not find function (?P<name>[\w.]+)|undefined variable `(?P<variable>\w+)`")
_SHAPES = {
    "allow": (("value",), "write `allow if ...`"),
    "cost": (("value", "object"), "write `cost := {...} if ...`"),
    **{name: (("set",), f"write `{name} contains ... if ...`") for name in RULES if name not in {"allow", "cost"}},
}


class InvalidPolicy(Invalid):
    """Policies that cannot be used; `problems` says where and why, `fatal` that the engine dies of their mere text."""

    def __init__(self, problems: Iterable[Problem], *, fatal: bool = False) -> None:
        self.problems = tuple(problems)
        self.fatal = fatal
        super().__init__("\n".join(describe(problem) for problem in self.problems))


def describe(problem: Problem) -> str:
    """`path:line:column: message (hint)`."""
    place = f"{problem.path}:{problem.line}:{problem.column}" if problem.line else problem.path
    return f"{place}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")


@dataclass(frozen=True, slots=True)
class Analysed:
    """What is known about a set, for every thread: most of what its compilation costs goes into this."""

    policies: PolicySet
    revisions: Mapping[str, str] = field(default_factory=dict[str, str])
    revision: str = ""


@dataclass(slots=True)
class Compiled:
    """A warmed engine, to be cloned for each evaluation on the thread that made it, and what is known about it."""

    engine: NativeEngine
    policies: PolicySet


def _at_once() -> None:
    """Nothing to do between two modules."""


def compile_source(source: PolicySource, *, coverage: bool = False) -> Compiled:
    """Raises `InvalidPolicy` with every problem that was found."""
    return finished(making(source, analyse_source(source), coverage=coverage))


def analyse_source(source: PolicySource, between: Callable[[], None] = _at_once) -> Analysed:
    """Read every module; `between` is called before each. Raises `InvalidPolicy` with every problem that was found."""
    modules, problems = parse_source(source, between)
    policies = PolicySet(modules)
    if not problems:
        problems = find_problems(policies, source.data)
    if problems:
        raise InvalidPolicy(problems)
    return Analysed(policies, _revisions(source, policies), _revision(source))


def making(source: PolicySource, analysed: Analysed, *, coverage: bool = False) -> Generator[None, None, Compiled]:
    """The native engine of a set, in steps of about a module, all on one thread. Raises `InvalidPolicy`."""
    policies = analysed.policies
    try:
        modules = ((module.path, module.source) for module in source.modules)
        engine = yield from building(modules, source.data, coverage=coverage)
    except RegoFault as fault:
        problem = _problem(fault, policies, "", source)
    except (ValueError, TypeError, RecursionError) as exc:
        problem = Problem("data", 0, 0, f"the data document is no JSON: {exc}")
    else:
        return Compiled(engine, policies)
    raise InvalidPolicy([problem])


def parse_source(
    source: PolicySource, between: Callable[[], None] = _at_once
) -> tuple[list[ModuleSyntax], list[Problem]]:
    """Every module that can be parsed, and a problem for each that cannot: one fault does not hide the next."""
    modules: list[ModuleSyntax] = []
    problems: list[Problem] = []
    for module in source.modules:
        between()
        try:
            engine = build([(module.path, module.source)], {}, evaluate_once=False)
            modules.extend(parse_module(tree) for tree in syntax_trees(engine))
        except RegoFault as fault:
            problems.append(_problem(fault, None, module.path, source))
    return modules, problems


def find_problems(policies: PolicySet, data: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with modules that parse."""
    problems = [problem for module in policies.modules for problem in _module_problems(module, policies)]
    problems.extend(_recursion(policies))
    if "fulcrum" in data:
        problems.append(
            Problem("data", 0, 0, "a data document has the key `fulcrum`, which is kept for packages", "rename it")
        )
    return problems


def _module_problems(module: ModuleSyntax, policies: PolicySet) -> Iterator[Problem]:
    name = module.package.removeprefix(POLICIES)
    is_policy = module.package.startswith(POLICIES)
    if (is_policy and not _NAME.match(name)) or module.package == POLICIES.rstrip("."):
        yield Problem(
            module.file,
            module.package_line,
            1,
            f"package {module.package} is no policy's name",
            "write `package fulcrum.policies.<name>` with one name of letters, digits and _",
        )
    for alias, target in module.imports.items():
        if alias in {"input", "data"} and target != (alias,):
            message = f"an import takes the name {alias}"
            yield Problem(module.file, module.package_line, 1, message, "give it another name with `as`")
    known = _functions(module, policies)
    for rule in module.rules:
        shape = _SHAPES.get(rule.name) if is_policy else None
        if shape is not None and rule.kind not in shape[0]:
            kind = {"object": "an object", "tree": "a tree of rules"}.get(rule.kind, f"a {rule.kind}")
            yield Problem(module.file, rule.line, rule.column, f"rule {rule.name} is written as {kind}", shape[1])
        yield from _call_problems(module, rule, known)


def _call_problems(module: ModuleSyntax, rule: RuleSyntax, known: set[str]) -> Iterator[Problem]:
    for replaced in rule.overridden:
        if replaced in REFUSED:
            yield Problem(module.file, rule.line, rule.column, f"{replaced} is not offered", REFUSED[replaced])
    for call in rule.calls:
        if call.name in REFUSED:
            yield Problem(module.file, call.line, call.column, f"{call.name} is not offered", REFUSED[call.name])
        elif call.name not in OFFERED and call.name not in known:
            hint = _guess(call.name, [*OFFERED, *known])
            yield Problem(module.file, call.line, call.column, f"there is no function {call.name}", hint)


def _functions(module: ModuleSyntax, policies: PolicySet) -> set[str]:
    """The functions that a module can call, by every name it has for them."""
    paths = [path for path, rules in policies.rules.items() if any(rule.kind == "function" for rule in rules)]
    names = set(paths)
    own = f"data.{module.package}."
    names.update(path.removeprefix(own) for path in paths if path.startswith(own))
    for alias, target in module.imports.items():
        prefix = ".".join(str(step) for step in target)
        for path in paths:
            if path == prefix or path.startswith(prefix + "."):
                names.add(alias + path.removeprefix(prefix))
    return names


def _recursion(policies: PolicySet) -> Iterator[Problem]:
    """Rules that need themselves: OPA refuses them, and this engine dies of recursive functions."""
    edges = {
        path: set().union(*(policies.edges(rule, precise=True) for rule in rules))
        for path, rules in policies.rules.items()
    }
    places = {rule.path: (module.file, rule) for module in policies.modules for rule in reversed(module.rules)}
    for path in _on_cycles(edges):
        file, rule = places[path]
        yield Problem(file, rule.line, rule.column, f"{rule.name} needs its own value (recursion)", "break the circle")


def _on_cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """Nodes that can be reached from themselves; what can be neither entered nor left is peeled off first."""
    left = {node: set(targets) for node, targets in edges.items()}
    while True:
        entered = set().union(*left.values()) if left else set()
        loose = {node for node, targets in left.items() if not targets & left.keys() or node not in entered}
        if not loose:
            break
        left = {node: targets - loose for node, targets in left.items() if node not in loose}
    return sorted(node for node in left if _reaches(left, node))


def _reaches(edges: Mapping[str, set[str]], start: str) -> bool:
    waiting, seen = list(edges[start]), set[str]()
    while waiting:
        node = waiting.pop()
        if node == start:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(edges.get(node, ()))
    return False


def _problem(fault: RegoFault, policies: PolicySet | None, path: str, source: PolicySource) -> Problem:
    found = _MISSING.search(fault.message)
    hint = ""
    if found is not None:
        name = found["name"] or found["variable"]
        known = {"input", "data", *OFFERED}
        if policies is not None:
            known.update(rule.name for module in policies.modules for rule in module.rules if module.file == fault.path)
        hint = _guess(name, known)
    elif "`if` keyword" in fault.message:
        hint = "write `allow if { ... }`"
    elif "Missing package" in fault.message:
        hint = "begin with `package fulcrum.policies.<name>`"
    where = fault.path or path
    text = next((module.source for module in source.modules if module.path == where), "")
    lines = text.split("\n")
    column = plain_column(lines[fault.line - 1], fault.column) if 0 < fault.line <= len(lines) else fault.column
    return Problem(where, fault.line, column, fault.message, hint)


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def _revisions(source: PolicySource, policies: PolicySet) -> dict[str, str]:
    digests = {module.path: module.digest for module in source.modules}
    return {
        name: digests[modules[0].file][:12]
        if len(modules) == 1
        else hashlib.sha256("".join(digests[module.file] for module in modules).encode()).hexdigest()[:12]
        for name, modules in policies.policies.items()
    }


def _revision(source: PolicySource) -> str:
    """Digest of everything: modules, library and data."""
    digest = hashlib.sha256()
    for module in sorted(module.digest for module in source.modules):
        digest.update(module.encode())
    digest.update(json.dumps(source.data, sort_keys=True).encode())
    return digest.hexdigest()
