"""Policy source as data: modules, what a compiled set mentions, and what is wrong with a broken one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "PolicyInfo",
    "PolicyModule",
    "PolicySource",
    "Problem",
    "parse_source_text",
    "source_digest",
    "source_text",
]


@dataclass(frozen=True, slots=True)
class PolicyModule:
    """One Rego file. `path` is shown to people; `source` is its whole text."""

    path: str
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the source, hex: the revision of a module."""
        return hashlib.sha256(self.source.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Everything one engine is built from: policies, library modules and data documents."""

    modules: tuple[PolicyModule, ...]
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    name: str = ""


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What the data plane may skip: true where any policy's text can depend on it."""

    names: tuple[str, ...]
    revision: str
    judges_results: bool
    reads_history: bool
    reads_budget: bool
    list_reads_time: bool
    """A list verdict may change without a new snapshot, so it must not be cached for long."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding about a policy: where and what, with a guess at the remedy."""

    path: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: str = "error"


def source_digest(source: PolicySource) -> str:
    """SHA-256 (hex) over every module's path and text, in the order of paths, and the data documents."""
    modules = sorted((module.path, module.source) for module in source.modules)
    text = json.dumps([modules, source.data], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def source_text(source: PolicySource) -> tuple[str, str]:
    """How stores keep it: modules as a JSON array of [path, source], data as a JSON object; ASCII."""
    modules = [[module.path, module.source] for module in source.modules]
    return json.dumps(modules), json.dumps(source.data)


def parse_source_text(name: str, modules: str, data: str) -> PolicySource:
    """What `source_text` made of a set."""
    pairs = json.loads(modules)
    return PolicySource(tuple([PolicyModule(path, text) for path, text in pairs]), json.loads(data), name)
