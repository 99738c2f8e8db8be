"""What a set of modules may depend on, and which rules have to be asked in which phase."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fulcrum_adapters.rego.syntax import PHASES, ModuleSyntax, Path, RuleSyntax, overlaps
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.core.verdict import PHASE_RULES, RULES

__all__ = ["POLICIES", "PolicySet"]

POLICIES = "fulcrum.policies."
"""Packages below it are policies; all others are functions and facts for them."""

_RESULT_RULES = ("deny", "redact", "taint", "cost")
_LATER = (("result",), ("phase",), ("history",), ("budget",), ("context", "time"))
"""What may differ between phase call and phase result: a deny that reads none of it has been said already."""


@dataclass(frozen=True)
class PolicySet:
    """The rules of all modules of one engine, and how they hang together."""

    modules: Sequence[ModuleSyntax]

    @cached_property
    def rules(self) -> Mapping[str, tuple[RuleSyntax, ...]]:
        """All definitions by full path (`data.fulcrum.policies.mine.allow`)."""
        found: dict[str, list[RuleSyntax]] = {}
        for module in self.modules:
            for rule in module.rules:
                found.setdefault(rule.path, []).append(rule)
        return {path: tuple(rules) for path, rules in found.items()}

    @cached_property
    def policies(self) -> Mapping[str, tuple[ModuleSyntax, ...]]:
        """Modules by the policy they make up, in the order of the policies' names."""
        found: dict[str, list[ModuleSyntax]] = {}
        for module in self.modules:
            if module.package.startswith(POLICIES):
                found.setdefault(module.package.removeprefix(POLICIES), []).append(module)
        return {name: tuple(found[name]) for name in sorted(found)}

    def definitions(self, policy: str, rule: str) -> tuple[RuleSyntax, ...]:
        """All definitions of one rule of a policy."""
        return self.rules.get(f"data.{POLICIES}{policy}.{rule}", ())

    def asked(self, policy: str, phase: Phase) -> dict[str, bool]:
        """The rules of a policy that can have a value in `phase`; the others need not be evaluated.

        With each: whether it can only be a set or an object, so that the engine's answer is never ambiguous.
        """
        return {
            rule: all(definition.plain for definition in self.definitions(policy, rule))
            for rule in PHASE_RULES[phase]
            if any(phase in self.phases(definition) for definition in self.definitions(policy, rule))
        }

    def phases(self, rule: RuleSyntax, seen: frozenset[str] = frozenset()) -> frozenset[str]:
        """The phases in which a definition can hold, judged by the guards it states or calls by name."""
        if rule.default or not rule.bodies or rule.kind == "function":
            return PHASES
        found: frozenset[str] = frozenset()
        for body in rule.bodies:
            phases = body.phases
            for name in body.requires:
                path = f"data.{rule.package}.{name}"
                if path not in seen and name not in rule.local:
                    helpers = [helper for helper in self.rules.get(path, ()) if helper.kind == "value"]
                    if helpers and len(helpers) == len(self.rules[path]):
                        phases &= frozenset().union(*(self.phases(helper, seen | {path}) for helper in helpers))
            found |= phases
        return found

    def edges(self, rule: RuleSyntax, *, precise: bool) -> set[str]:
        """Full paths of the rules that a definition refers to.

        `precise` leaves out names that are also its variables and references with computed steps near the root: right
        for finding recursion, which must not be imagined; wrong for finding out what may be read.
        """
        found = {
            path
            for name in rule.names
            if not (precise and name in rule.local) and (path := f"data.{rule.package}.{name}") in self.rules
        }
        for reference in rule.data:
            if precise and None in reference[:2]:
                continue
            found.update(path for path in self.rules if overlaps(reference, tuple(path.split(".")[1:])))
        return found

    def reads(self, rules: Iterable[RuleSyntax]) -> set[Path]:
        """Everything of the input that `rules` can see, directly or through other rules and functions."""
        waiting = list(rules)
        seen: set[str] = set()
        paths: set[Path] = set()
        while waiting:
            rule = waiting.pop()
            paths.update(path for path, _, _ in rule.inputs)
            for path in self.edges(rule, precise=False) - seen:
                seen.add(path)
                waiting.extend(self.rules[path])
        return paths

    def info(self, revision: str) -> PolicyInfo:
        """What the data plane may skip."""
        everything = self.reads(rule for policy in self.policies for rule in self._spoken(policy, RULES))
        listing = self.reads(
            rule
            for policy in self.policies
            for rule in self._spoken(policy, PHASE_RULES["list"])
            if "list" in self.phases(rule)
        )
        return PolicyInfo(
            names=tuple(self.policies),
            revision=revision,
            judges_results=any(self._judges_results(policy) for policy in self.policies),
            reads_history=_sees(everything, ("history",)),
            reads_budget=_sees(everything, ("budget",)),
            list_reads_time=any(_sees(listing, part) for part in (("context", "time"), ("history",), ("budget",))),
        )

    def _spoken(self, policy: str, rules: Iterable[str]) -> Iterable[RuleSyntax]:
        return [definition for rule in rules for definition in self.definitions(policy, rule)]

    def _judges_results(self, policy: str) -> bool:
        for name in _RESULT_RULES:
            for rule in self.definitions(policy, name):
                if rule.default or "result" not in self.phases(rule):
                    continue
                if name in {"redact", "taint"} or self._may_differ(rule, name):
                    return True
        return False

    def _may_differ(self, rule: RuleSyntax, name: str) -> bool:
        seen = self.reads([rule])
        later = (("result",), ("phase",)) if name == "cost" else _LATER
        return any(_sees(seen, part) for part in later)


def _sees(paths: Iterable[Path], target: tuple[str, ...]) -> bool:
    return any(overlaps(path, target) for path in paths)
