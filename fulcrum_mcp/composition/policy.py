"""What the commands about policies need of the Rego adapter, in the words of the commands."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.documents import read_document, read_text
from fulcrum_adapters.rego.engine import MAX_INPUT, RegoEngine
from fulcrum_adapters.rego.explain import as_data, explain
from fulcrum_adapters.rego.folder import MAX_DATA, files, passed_over, read_policies, starter
from fulcrum_adapters.rego.lint import lint, unallowed
from fulcrum_adapters.rego.loading import InvalidPolicy
from fulcrum_adapters.rego.testing import Suite, SuiteResult, read_suite, run_suite
from fulcrum_mcp.composition.repositories import sqlite_repositories
from fulcrum_mcp.composition.snapshots import OBSERVE, with_library
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Decision, combine
from fulcrum_mcp.core.policy import PolicySource, Problem
from fulcrum_mcp.errors import FulcrumError, Invalid
from fulcrum_mcp.settings import Settings

__all__ = [
    "STORED",
    "check_policies",
    "evaluate_input",
    "explain_input",
    "ignored_files",
    "phase_of",
    "policies_of_decision",
    "policy_files",
    "read_input",
    "remember_policies",
    "remembered_policies",
    "run_tests",
]

STORED = "published in "
"""Before a data folder: the policies are those of its store."""

_PATIENCE = 30
_REMEMBERED = "policies.last"
_ROLE = 64
_ROLES = 500

_PHASES: Mapping[str, Phase] = {"list": "list", "call": "call", "result": "result"}


def check_policies(where: str, tools: Path | None = None, config: Path | None = None) -> list[Problem]:
    """Everything that is wrong or doubtful, errors first. Raises `Invalid` when `where` cannot be read at all.

    `tools`: a JSON file `{server: [tool, ...]}` (or what `tools/list` answers, by server); each must be for somebody.
    `config`: a configuration whose servers are asked for their tools.
    """
    source = read_policies(where)
    try:
        admit(source)
    except InvalidPolicy as exc:
        return [*exc.problems, *([] if exc.fatal else lint(source)), *passed_over(Path(where))]
    problems = [*lint(source), *passed_over(Path(where))]
    if not RegoEngine(source).info.names:
        hint = "add a .rego file with `package fulcrum.policies.NAME`"
        problems.append(Problem(where, 0, 0, "no policy in it, so every call would be denied", hint))
    if tools is not None:
        problems.extend(unallowed(source, _listed(tools), _roles(source)))
    if config is not None:
        asked, silent = asyncio.run(_ask_servers(config))
        problems.extend(
            Problem(
                str(config), 0, 0, f"server {name} does not say its tools: {why}", "start it and check again", "warning"
            )
            for name, why in silent.items()
        )
        problems.extend(unallowed(source, asked, _roles(source)))
    return problems


async def _ask_servers(config: Path) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, str]]:
    """Tools by server, and why a server told none."""
    from fulcrum_mcp.composition.gateway import build_upstream  # noqa: PLC0415 - loads every upstream's client
    from fulcrum_mcp.gateway.catalog import Catalog  # noqa: PLC0415
    from fulcrum_mcp.settings import load  # noqa: PLC0415

    settings = load(config, environ=os.environ)
    tools: dict[str, list[Mapping[str, Any]]] = {}
    silent: dict[str, str] = {}
    for server in settings.servers:
        upstream = build_upstream(server, settings)
        catalog = Catalog(upstream)
        try:
            async with asyncio.timeout(_PATIENCE):
                await catalog.refresh()
            if catalog.ready:
                tools[server.name] = [entry.descriptor for entry in catalog.tools.values()]
            else:
                silent[server.name] = catalog.failure or "it does not answer"
        except (TimeoutError, FulcrumError) as exc:
            silent[server.name] = str(exc) or f"no answer within {_PATIENCE} s"
        finally:
            await upstream.close()
    return tools, silent


def policy_files(where: str) -> tuple[str, dict[str, str]]:
    """What publishing sends: a name, and every file of a folder or starter by its path. Raises `Invalid`."""
    place = Path(where)
    if not place.exists():
        return where, _starter_files(where)
    paths = list(files(place)) if place.is_dir() else [place, place.with_name(f"{place.stem}_test.rego")]
    root = place if place.is_dir() else place.parent
    found = {path.relative_to(root).as_posix(): read_text(path, MAX_DATA) for path in paths if path.is_file()}
    return place.resolve().stem, found


def ignored_files(where: str) -> list[Problem]:
    """Warnings of documents that nothing reads."""
    return passed_over(Path(where))


def _starter_files(name: str) -> dict[str, str]:
    source = starter(name)
    own = [module for module in source.modules if not module.path.startswith("fulcrum/lib/")]
    data = {"data.json": json.dumps(source.data)} if source.data else {}
    return {**{module.path: module.source for module in own}, **data}


def _policies(where: str) -> PolicySource:
    """What `where` names: a folder, a file, a starter, or what is published in a data folder. Raises `Invalid`."""
    if not where.startswith(STORED):
        return read_policies(where)
    found = _published(Path(where.removeprefix(STORED)))
    if found is None:
        raise Invalid(f"{where.removeprefix(STORED)}: no policies were published there; name others with --policies")
    return with_library(found)


def _published(data: Path) -> PolicySource | None:
    if not (data / "fulcrum.db").exists():
        return None
    stores = sqlite_repositories(data)
    try:
        newest = stores.policies.get()
    finally:
        stores.close()
    return None if newest is None else newest.source


def run_tests(where: str, *, coverage: bool = False) -> SuiteResult:
    """Run the tests of a folder, after its policies have been admitted. Raises `Invalid`."""
    source = read_policies(where)
    path = Path(where)
    suite = read_suite(path) if path.exists() else Suite()
    try:
        admit(source, suite)
    except InvalidPolicy as exc:
        if not all(" fails: " in problem.message for problem in exc.problems):
            raise
    return run_suite(source, suite, coverage=coverage)


def read_input(text: str) -> dict[str, Any]:
    """A policy input document from JSON text; phase and method are filled in. Raises `Invalid`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"--input: no JSON: {exc}; give one policy input document") from exc
    if not isinstance(document, dict):
        raise Invalid("--input: not an object; give one policy input document")
    phase = phase_of(document)
    return {"phase": phase, "method": "tools/list" if phase == "list" else "tools/call", **document}


def phase_of(document: Mapping[str, Any]) -> Phase:
    """Its phase, `call` if it says none. Raises `Invalid`."""
    phase = _PHASES.get(str(document.get("phase", "call")))
    if phase is None:
        raise Invalid(f"--input: phase {document.get('phase')!r} is not one of list, call, result")
    return phase


def evaluate_input(where: str, document: Mapping[str, Any]) -> Decision:
    """The decision about one input. Raises `Invalid`."""
    source = _policies(where)
    admit(source)
    phase = phase_of(document)
    return combine(RegoEngine(source, max_input=MAX_INPUT).judge(phase, json.dumps(document).encode()), phase)


def explain_input(where: str, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Each definition of a rule that spoke: policy, rule, path, line, value, fault. Raises `Invalid`."""
    source = _policies(where)
    admit(source)
    return as_data(explain(source, phase_of(document), json.dumps(document).encode()))


def policies_of_decision(where: str) -> dict[str, str]:
    """Names and revisions of the policies as they are now, to compare with a recorded decision's."""
    source = _policies(where)
    admit(source)
    verdicts = RegoEngine(source).judge("call", b"{}")
    return {verdict.policy: verdict.revision for verdict in verdicts}


def remember_policies(settings: Settings, where: Path | str) -> None:
    """So that a decision can be explained later with the files that took it: the last ones used on a data folder."""
    if settings.policy.engine != "rego":
        return
    data = settings.data
    text = str(where.resolve()) if isinstance(where, Path) else where
    draft = data / f".policies.{os.getpid()}"
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(data / _REMEMBERED)
    except OSError:
        draft.unlink(missing_ok=True)


def remembered_policies(data: Path) -> str | None:
    """What `remember_policies` kept, if it can be read."""
    try:
        last = (data / _REMEMBERED).read_text(encoding="utf-8") or None
    except (OSError, UnicodeDecodeError):
        last = None
    if last in (None, OBSERVE) and _published(data) is not None:
        return f"{STORED}{data}"
    return last


def _listed(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    document = read_document(path, 16 << 20)
    if not isinstance(document, dict):
        raise Invalid(f"{path}: write {{server: [tool, ...]}}")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for server, listed in document.items():
        tools = listed.get("tools") if isinstance(listed, dict) else listed
        if not isinstance(tools, list) or not all(isinstance(tool, dict) and "name" in tool for tool in tools):
            raise Invalid(f"{path}: {server}: not a list of tools with names")
        found[server] = tools
    return found


def _roles(source: PolicySource) -> list[str]:
    """Words of the policies and their data that may be roles: every short string of the data, and quoted ones."""
    words: set[str] = set()
    waiting: list[Any] = [source.data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            words.update(str(key) for key in value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str):
            words.add(value)
    for module in source.modules:
        if not module.path.startswith("fulcrum/lib/"):
            words.update(module.source.split('"')[1::2])
    plain = (word for word in words if 0 < len(word) <= _ROLE and word.replace("_", "").replace("-", "").isalnum())
    return sorted(plain)[:_ROLES]
