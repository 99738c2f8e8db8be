"""Cases and test rules: what is read, what is compared, and that a wrong answer is never called a pass."""

from pathlib import Path

import pytest

from fulcrum_adapters.rego.cases import Case, read_cases, run_cases
from fulcrum_adapters.rego.folder import read_folder
from fulcrum_adapters.rego.loading import InvalidPolicy
from fulcrum_adapters.rego.testing import Suite, read_suite, run_suite
from fulcrum_mcp.core.decision import Decision, Reason, Redaction
from fulcrum_mcp.errors import Invalid, Unavailable

DECISION = Decision(
    "deny",
    (Reason("p", "deny", "c", "no such luck"),),
    (Reason("p", "warn", "w", "careful"),),
    (Redaction(pointer="/a"),),
    ("t",),
    {"calls": 2},
    (("p", "1"),),
)


def case(want: dict[str, object], audit: dict[str, object] | None = None) -> Case:
    return Case("f.yaml", "n", "call", {}, want, audit or {})


RIGHT: list[dict[str, object]] = [
    {"effect": "deny"},
    {"code": "c"},
    {"policy": "p"},
    {"message": "such luck"},
    {"warnings": ["w"]},
    {"redact": ["/a"]},
    {"taints": ["t"]},
    {"cost": {"calls": 2}},
]
WRONG: list[dict[str, object]] = [
    {"effect": "allow"},
    {"code": "d"},
    {"policy": "q"},
    {"message": "luck!"},
    {"warnings": []},
    {"redact": []},
    {"taints": ["t", "u"]},
    {"cost": {}},
]


@pytest.mark.parametrize(("want", "faults"), [*((want, 0) for want in RIGHT), *((want, 1) for want in WRONG)])
def test_each_member_of_want_is_compared(want: dict[str, object], faults: int) -> None:
    (result,) = run_cases([case(want)], lambda _: DECISION)
    assert len(result.faults) == faults


@pytest.mark.parametrize(
    ("audit", "faults"),
    [
        ({"type": "dev.fulcrum.tool_call.decided", "effect": "deny", "policy": "p"}, 0),
        ({"effect": "allow"}, 1),
        ({"policy": "q"}, 1),
        ({"type": "other"}, 1),
        ({"unknown": 1}, 1),
    ],
)
def test_the_audit_event_is_compared(audit: dict[str, object], faults: int) -> None:
    (result,) = run_cases([case({"effect": "deny"}, audit)], lambda _: DECISION)
    assert len(result.faults) == faults


def test_an_evaluator_that_does_not_answer_is_a_fault() -> None:
    def silent(_: Case) -> Decision:
        raise Unavailable("nobody there")

    (result,) = run_cases([case({"effect": "deny"})], silent)
    assert result.faults == ("nobody there",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: 1", "not a list"),
        ("- input: {}", "no name"),
        ("- name: a\n  input: {}\n  wants: {}", "unknown member 'wants'"),
        ("- name: a\n  want: {effect: allow}", "must be there"),
        ("- name: a\n  input: {}\n  want: {}", "at least one"),
        ("- name: a\n  input: {}\n  want: {efect: allow}", "at least one"),
        ("- name: a\n  input: {phase: later}\n  want: {effect: allow}", "'later'"),
        ("- name: [", "a.yaml:1:"),
    ],
)
def test_a_case_that_says_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases/a.yaml").write_text(text)
    with pytest.raises(Invalid, match=said):
        read_cases(tmp_path)


def folder(tmp_path: Path, test: str, name: str = "p_test.rego") -> Path:
    (tmp_path / "p.rego").write_text("package fulcrum.policies.p\n\nallow if {\n\tinput.x == 1\n\tinput.y == 2\n}\n")
    (tmp_path / name).write_text(test)
    return tmp_path


def test_a_rule_passes_only_when_it_is_true(tmp_path: Path) -> None:
    rules = ("test_a if true", "test_b if false", "test_c := 1", "test_d := false", "test_e if 1 / 0", "helper if true")
    text = "\n\n".join(("package p_test", *rules))
    path = folder(tmp_path, text)
    result = run_suite(read_folder(path), read_suite(path))
    assert [(rule.name, rule.passed) for rule in result.rules] == [
        ("test_a", True),
        *((f"test_{name}", False) for name in "bcde"),
    ]
    assert not result.ok


def test_nothing_run_is_no_success(tmp_path: Path) -> None:
    path = folder(tmp_path, "x", "notes.txt")
    assert not run_suite(read_folder(path), Suite()).ok


def test_prints_are_shown(tmp_path: Path) -> None:
    path = folder(tmp_path, 'package p_test\n\ntest_a if print("hello", 5)\n')
    assert "hello 5" in run_suite(read_folder(path), read_suite(path)).rules[0].prints[0]


def test_coverage_names_the_lines_that_no_test_reached(tmp_path: Path) -> None:
    text = 'package p_test\n\nimport data.fulcrum.policies.p\n\ntest_a if not p.allow with input as {"x": 2}\n'
    path = folder(tmp_path, text)
    (lines,) = run_suite(read_folder(path), read_suite(path), coverage=True).coverage.values()
    assert 5 in lines.missed
    assert 4 in lines.covered


def test_a_test_that_does_not_parse_is_refused_with_its_place(tmp_path: Path) -> None:
    path = folder(tmp_path, "package p_test\n\ntest_a if (\n")
    with pytest.raises(InvalidPolicy, match=r"p_test\.rego:"):
        run_suite(read_folder(path), read_suite(path))
