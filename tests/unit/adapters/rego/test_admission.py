"""Policies that would stop, end or fill the process are refused by name, in a process that may be killed."""

import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from fulcrum_adapters.rego import admission
from fulcrum_adapters.rego.admission import admit
from fulcrum_adapters.rego.folder import read_folder, starter
from fulcrum_adapters.rego.loading import InvalidPolicy
from fulcrum_adapters.rego.testing import read_suite
from fulcrum_mcp.core.policy import PolicyModule, PolicySource

TIMEOUT = 2.0


def source(name: str, text: str) -> PolicySource:
    return PolicySource((PolicyModule(f"{name}.rego", f"package fulcrum.policies.{name}\n\n{text}\n"),), {}, name)


LOOP = """
allow if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a + b + c == -1
}
"""
PAIRS = """
deny contains "x" if {
	input.phase == "call"
	some a in input.arguments.list
	some b in input.arguments.list
	a == sprintf("%s!", [b])
}
"""
BAD = {
    "loops": (LOOP, "did not finish|processor time"),
    "grows": ("allow if count(numbers.range(1, 2000000000)) > 0", "memory"),
    "panics": ('allow if strings.count(input.tool.name, "") > 0', "panicked"),
    "recurses": ("allow if f(1)\n\nf(x) if f(x + 1)", "recursion"),
    "multiplies": (PAIRS, "did not finish|processor time"),
    "nests": ("allow if " + "(" * 20_000 + "true" + ")" * 20_000, "nesting|cannot be parsed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_policy_that_would_harm_is_refused_by_name(name: str) -> None:
    text, said = BAD[name]
    others = {child.pid for child in psutil.Process(os.getpid()).children()}
    with pytest.raises(InvalidPolicy, match=said) as caught:
        admit(source(name, text), timeout=TIMEOUT)
    assert f"{name}.rego" in str(caught.value)
    assert {child.pid for child in psutil.Process(os.getpid()).children()} <= others


def test_a_good_policy_is_admitted() -> None:
    admit(source("good", 'allow if input.tool.name == "x"'), timeout=20)


def test_a_starter_as_it_came_is_not_tried_again_and_a_changed_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refuse(*_: object, **__: object) -> None:
        tried.append(1)
        pytest.fail("tried")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    admit(starter("observe"))
    changed = PolicySource(starter("observe").modules, {"x": 1}, "observe")
    with pytest.raises(pytest.fail.Exception):
        admit(changed)
    assert tried == [1]


def test_the_child_sees_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULCRUM_ADMIN_KEY", "canary")
    seen: list[dict[str, str]] = []
    real = subprocess.Popen

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(options["env"])
        return real(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", spy)
    admit(source("good", "allow := true"), timeout=20)
    assert seen
    assert all("canary" not in environment.values() for environment in seen)


def test_a_policy_whose_own_test_fails_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package fulcrum.policies.p\n\nallow if input.x == 1\n")
    (tmp_path / "p_test.rego").write_text(
        'package p_test\n\nimport data.fulcrum.policies.p\n\ntest_two if p.allow with input as {"x": 2}\n'
    )
    with pytest.raises(InvalidPolicy, match="test_two fails: it has no value") as caught:
        admit(read_folder(tmp_path), read_suite(tmp_path), timeout=20)
    assert caught.value.problems[0].line == 5


def test_a_policy_whose_case_fails_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package fulcrum.policies.p\n\nallow if input.x == 1\n")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases/p.yaml").write_text("- name: two\n  input: {x: 2}\n  want: {effect: allow}\n")
    with pytest.raises(InvalidPolicy, match="case 'two' fails"):
        admit(read_folder(tmp_path), read_suite(tmp_path), timeout=20)


def test_a_test_that_loops_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package fulcrum.policies.p\n\nallow := true\n")
    (tmp_path / "p_test.rego").write_text("package p_test\n\ntest_loop if f(1)\n\nf(x) if f(x + 1)\n")
    with pytest.raises(InvalidPolicy, match="test_loop"):
        admit(read_folder(tmp_path), read_suite(tmp_path), timeout=TIMEOUT)


def many(name: str, rules: int) -> PolicyModule:
    lines = [f'deny contains "r{number}" if input.tool.name == "t{number}"' for number in range(rules)]
    return PolicyModule(f"{name}.rego", f"package fulcrum.policies.{name}\n\nallow := true\n\n" + "\n".join(lines))


BOUNDS = {
    "module": ("_MODULE", "long\\.rego: takes .* to be read; -1.0 s are allowed for one module \\(divide it"),
    "set": ("_SET", "both: its 2 modules take .* to be read; -1.0 s are allowed \\(take rules away"),
    "ready": ("_READY", "both: takes .* to be taken into use; -1.0 s are allowed \\(take rules or data away"),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_set_that_would_keep_gateways_from_their_calls_is_refused_with_its_figure(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, said = BOUNDS[name]
    both = PolicySource((many("long", 20), many("short", 2)), {}, "both")
    admit(both, timeout=20)
    monkeypatch.setattr(admission, bound, -1.0)
    with pytest.raises(InvalidPolicy, match=said) as caught:
        admit(both, timeout=20)
    assert not caught.value.fatal


def test_what_a_module_costs_to_read_is_found_out_in_the_process_that_may_be_killed() -> None:
    with pytest.raises(InvalidPolicy, match=r"long\.rego: .*(takes .* for one module|used up|did not finish)"):
        admit(PolicySource((many("long", 12_000),), {}, "long"), timeout=TIMEOUT)
