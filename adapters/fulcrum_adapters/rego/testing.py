"""Running what authors wrote to test their policies: `test_*` rules of `*_test.rego`, and which lines they reached."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fulcrum_adapters.rego.cases import Case, CaseResult, read_cases, run_cases
from fulcrum_adapters.rego.documents import read_text
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import files, starter
from fulcrum_adapters.rego.library import MAX_MODULE
from fulcrum_adapters.rego.loading import InvalidPolicy, parse_source
from fulcrum_adapters.rego.native import NativeEngine, RegoFault, build, evaluate, guarded
from fulcrum_mcp.core.decision import Decision, combine
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.errors import Invalid

__all__ = ["Coverage", "Suite", "SuiteResult", "TestRule", "read_suite", "run_suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests that belong to a policy folder."""

    modules: tuple[PolicyModule, ...] = ()
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True)
class TestRule:
    """One `test_*` rule; it passes only when its value is true. `prints` are what it printed."""

    __test__ = False

    path: str
    line: int
    name: str
    passed: bool
    fault: str = ""
    prints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Coverage:
    """Lines of one module that were evaluated and that were not."""

    covered: frozenset[int]
    missed: frozenset[int]


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Everything that was run. `ok` is False when nothing was."""

    rules: tuple[TestRule, ...]
    cases: tuple[CaseResult, ...]
    coverage: Mapping[str, Coverage] = field(default_factory=dict[str, Coverage])

    @property
    def ok(self) -> bool:
        """At least one test ran and none failed."""
        passed = all(rule.passed for rule in self.rules) and not any(result.faults for result in self.cases)
        return passed and bool(self.rules or self.cases)


def read_suite(path: Path) -> Suite:
    """The tests of a folder; of a single `.rego` file, the `_test.rego` beside it. Raises `Invalid`."""
    if path.is_file():
        beside = path.with_name(f"{path.stem}_test.rego")
        return Suite((PolicyModule(str(beside), read_text(beside, MAX_MODULE)),) if beside.is_file() else ())
    modules = [
        PolicyModule(str(file), read_text(file, MAX_MODULE)) for file in files(path) if file.name.endswith("_test.rego")
    ]
    return Suite(tuple(modules), read_cases(path))


def run_suite(source: PolicySource, suite: Suite, *, coverage: bool = False) -> SuiteResult:
    """Run the tests of admitted policies in this process. Raises `InvalidPolicy` when a test does not compile."""
    reached: dict[str, tuple[set[int], set[int]]] = {}
    rules = _run_rules(source, suite, reached if coverage else None)
    results = _run_cases(source, suite, reached if coverage else None)
    own = {module.path for module in source.modules if not module.path.startswith("fulcrum/lib/")}
    return SuiteResult(
        rules,
        results,
        {
            path: Coverage(frozenset(hit), frozenset(missed - hit))
            for path, (hit, missed) in reached.items()
            if path in own
        },
    )


def _run_rules(
    source: PolicySource, suite: Suite, reached: dict[str, tuple[set[int], set[int]]] | None
) -> tuple[TestRule, ...]:
    if not suite.modules:
        return ()
    both = PolicySource((*source.modules, *suite.modules), source.data, source.name)
    parsed, problems = parse_source(PolicySource(suite.modules))
    if problems:
        raise InvalidPolicy(problems)
    try:
        engine = build(
            ((module.path, module.source) for module in both.modules), both.data, coverage=reached is not None
        )
    except RegoFault as fault:
        raise Invalid(str(fault)) from fault
    found: list[TestRule] = []
    seen: set[str] = set()
    for module in parsed:
        for rule in module.rules:
            if rule.name.startswith("test_") and rule.kind == "value" and rule.path not in seen:
                seen.add(rule.path)
                found.append(_run_rule(engine, module.file, rule.line, rule.name, rule.path, reached))
    return tuple(found)


def _run_rule(
    pristine: NativeEngine,
    file: str,
    line: int,
    name: str,
    path: str,
    reached: dict[str, tuple[set[int], set[int]]] | None,
) -> TestRule:
    engine = pristine.clone()
    try:
        guarded(lambda: engine.set_input_json("{}"))
        defined, value = evaluate(engine, path)
        prints = tuple(guarded(engine.take_prints))
        if reached is not None:
            _gather(engine, reached)
    except RegoFault as fault:
        return TestRule(file, line, name, passed=False, fault=str(fault))
    said = "" if value is True else ("it has no value" if not defined else f"its value is {json.dumps(value)[:200]}")
    return TestRule(file, line, name, passed=value is True, fault=said, prints=prints)


def _run_cases(
    source: PolicySource, suite: Suite, reached: dict[str, tuple[set[int], set[int]]] | None
) -> tuple[CaseResult, ...]:
    engines: dict[tuple[str, ...], RegoEngine] = {}

    def judge(case: Case) -> Decision:
        engine = engines.get(case.beside)
        if engine is None:
            engine = engines[case.beside] = RegoEngine(beside(source, case.beside), coverage=reached is not None)
        decision = combine(engine.judge(case.phase, case.document), case.phase)
        if reached is not None and engine.last is not None:
            _gather(engine.last, reached)
        return decision

    return run_cases(suite.cases, judge)


def beside(source: PolicySource, names: Iterable[str]) -> PolicySource:
    """`source` with starter policies added, as far as it does not hold them itself."""
    have = {module.digest for module in source.modules}
    modules = list(source.modules)
    data = dict(source.data)
    for name in names:
        extra = starter(name)
        modules.extend(module for module in extra.modules if module.digest not in have)
        data.update({key: value for key, value in extra.data.items() if key not in data})
    return PolicySource(tuple(modules), data, source.name)


def _gather(engine: NativeEngine, reached: dict[str, tuple[set[int], set[int]]]) -> None:
    report = json.loads(guarded(engine.get_coverage_report_as_json))
    for file in report["files"]:
        hit, missed = reached.setdefault(file["path"], (set(), set()))
        hit.update(file["covered"])
        missed.update(file["not_covered"])
