"""What compiles and yet is surely not meant: misspelled names, rules that can never fire, rules that miss a guard."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fulcrum_adapters.rego.analysis import PolicySet
from fulcrum_adapters.rego.builtins import COSTLY
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.loading import INPUT_NAMES, parse_source
from fulcrum_adapters.rego.syntax import CallSite, ModuleSyntax, RuleSyntax
from fulcrum_mcp.core.decision import combine
from fulcrum_mcp.core.policy import PolicySource, Problem
from fulcrum_mcp.core.verdict import PHASE_RULES, RULES

__all__ = ["lint", "unallowed"]

_MEMBERS: Mapping[str, frozenset[str]] = {
    "principal": frozenset(("tenant", "agent", "key", "roles", "scopes", "on_behalf_of")),
    "server": frozenset(("name", "labels")),
    "tool": frozenset(("name", "title", "annotations", "pin")),
    "resource": frozenset(("uri",)),
    "prompt": frozenset(("name",)),
    "context": frozenset(("envelope", "workflow", "execution", "task", "client", "protocol", "time")),
    "history": frozenset(("taints", "calls", "approvals")),
    "budget": frozenset(("remaining",)),
}


def lint(source: PolicySource) -> list[Problem]:
    """Warnings about a set that compiles, by place."""
    modules, _ = parse_source(source)
    policies = PolicySet(modules)
    own = [module for module in modules if not module.file.startswith("fulcrum/lib/")]
    found = [problem for module in own for problem in _module(module, policies, source.data)]
    return sorted(set(found), key=lambda problem: (problem.path, problem.line, problem.column, problem.message))


def unallowed(
    source: PolicySource, tools: Mapping[str, Iterable[Mapping[str, Any]]], roles: Iterable[str]
) -> list[Problem]:
    """A warning for each tool (by server, as `tools/list` gives them) that no principal with one of `roles` may see."""
    engine = RegoEngine(source)
    found: list[Problem] = []
    for server, listed in tools.items():
        for tool in listed:
            if not any(_shown(engine, server, tool, role) for role in (None, *roles)):
                name = f"{server}__{tool.get('name')}"
                found.append(Problem(source.name, 0, 0, f"no rule allows the tool {name}", "", "warning"))
    return found


def _shown(engine: RegoEngine, server: str, tool: Mapping[str, Any], role: str | None) -> bool:
    principal = {"tenant": "default", "agent": "check", "key": "check", "roles": [role] if role else [], "scopes": []}
    shown = {"name": tool.get("name"), "annotations": tool.get("annotations") or {}, "pin": ""}
    document = {
        "phase": "list",
        "method": "tools/list",
        "principal": principal,
        "server": {"name": server, "labels": {}},
        "tool": shown,
    }
    return combine(engine.judge("list", json.dumps(document).encode()), "list").effect != "deny"


def _module(module: ModuleSyntax, policies: PolicySet, data: Mapping[str, Any]) -> Iterator[Problem]:
    is_policy = module.package.startswith("fulcrum.policies.")
    referred = {name for rule in module.rules for name in rule.names}
    for rule in module.rules:
        yield from _names(module, rule, policies, data)
        yield from _costs(module, rule)
        if not is_policy:
            continue
        if rule.name in RULES:
            yield from _firing(module, rule, policies)
        elif rule.name not in referred and rule.kind != "function":
            close = difflib.get_close_matches(rule.name, RULES, n=1, cutoff=0.7)
            if close:
                yield _warn(module, rule, f"nothing asks for rule {rule.name}", f"did you mean {close[0]}?")


def _names(module: ModuleSyntax, rule: RuleSyntax, policies: PolicySet, data: Mapping[str, Any]) -> Iterator[Problem]:
    for path, line, column in rule.inputs:
        for depth, known in ((0, frozenset(INPUT_NAMES)), (1, _MEMBERS.get(path[0] or "") if path else None)):
            step = path[depth] if len(path) > depth else None
            if step is not None and known is not None and step not in known:
                close = difflib.get_close_matches(step, sorted(known), n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
                where = ".".join(["input", *(str(part) for part in path[:depth])])
                yield Problem(module.file, line, column, f"{where} has no member {step}", hint, "warning")
    packages = {each.package.split(".")[0] for each in policies.modules}
    for reference in rule.data:
        root = reference[0] if reference else None
        if root is not None and root not in data and root not in packages:
            close = difflib.get_close_matches(root, [*data, *packages], n=1)
            hint = f"did you mean data.{close[0]}?" if close else "set it in data.json"
            yield _warn(module, rule, f"there is no data.{root}", hint)


def _costs(module: ModuleSyntax, rule: RuleSyntax) -> Iterator[Problem]:
    for call in rule.calls:
        for position in COSTLY.get(call.name, ()):
            if position < len(call.parameters) and _from_caller(call, position):
                yield Problem(
                    module.file,
                    call.line,
                    call.column,
                    f"an argument of the call decides how much work {call.name} is",
                    "take this parameter from a constant or from data",
                    "warning",
                )


def _from_caller(call: CallSite, position: int) -> bool:
    text = json.dumps(call.parameters[position])
    return '"value": "input"' in text and ('"arguments"' in text or '"result"' in text)


def _firing(module: ModuleSyntax, rule: RuleSyntax, policies: PolicySet) -> Iterator[Problem]:
    phases = policies.phases(rule)
    asked = {phase for phase, rules in PHASE_RULES.items() if rule.name in rules}
    reads = policies.reads([rule])
    arguments = any(path[:1] == ("arguments",) for path in reads)
    result = any(path[:1] == ("result",) for path, _, _ in rule.inputs)
    if not phases & asked:
        said = " and ".join(sorted(phases)) if phases else "none"
        yield _warn(
            module,
            rule,
            f"rule {rule.name} can never fire: it is asked in phase {', '.join(sorted(asked))}, holds in {said}",
        )
    elif rule.bodies and all(body.constant_false for body in rule.bodies):
        yield _warn(module, rule, f"rule {rule.name} can never fire: its body holds `false`")
    elif not rule.default and result and "result" not in phases & asked:
        yield _warn(module, rule, f"rule {rule.name} can never fire: there is no result in its phases")
    elif not rule.default and arguments and phases & asked == frozenset({"list"}):
        yield _warn(module, rule, f"rule {rule.name} can never fire: there are no arguments in phase list")
    elif not rule.default and arguments and "list" in phases & asked:
        hint = 'add `input.phase == "call"`, and for allow a second rule for phase list'
        yield _warn(module, rule, f"rule {rule.name} reads arguments in phase list, where there are none", hint)


def _warn(module: ModuleSyntax, rule: RuleSyntax, message: str, hint: str = "") -> Problem:
    return Problem(module.file, rule.line, rule.column, message, hint, "warning")
