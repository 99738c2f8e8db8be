"""What is refused when policies are loaded, with its place and a guess at what was meant."""

import pytest

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.loading import InvalidPolicy, analyse_source, compile_source
from fulcrum_mcp.core.policy import PolicyModule, PolicySource, Problem
from fulcrum_mcp.errors import Invalid


def problems(text: str, package: str = "fulcrum.policies.p", data: dict[str, object] | None = None) -> list[Problem]:
    with pytest.raises(Invalid) as caught:
        RegoEngine(PolicySource((PolicyModule("p.rego", f"package {package}\n{text}\n"),), data or {}))
    assert isinstance(caught.value, InvalidPolicy)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("allow if coutn(input.x) > 1", 2, "no function coutn", "count?"),
        ("allow if inptu.x == 1", 2, "inptu", "input?"),
        ("allow if {\n\tinput.x = = 1\n}", 3, "expecting expression", ""),
        ("allow { true }", 2, "`if` keyword", "allow if"),
        ("allow contains 1", 2, "rule allow is written as a set", "allow if"),
        ('deny := "no"', 2, "rule deny is written as a value", "deny contains"),
        ("deny if input.x", 2, "rule deny is written as a value", "deny contains"),
        ('cost["calls"] := 2', 2, "rule cost is written as a tree", "cost :="),
        ("cost.calls := 2", 2, "rule cost is written as a tree", "cost :="),
        ('cost["c\\u0061lls"] := 2', 2, "rule cost is written as a tree", "cost :="),
        ('deny["no"] if input.x', 2, "rule deny is written as", "deny contains"),
        ("deny[x] if x := input.x", 2, "rule deny is written as an object", "deny contains"),
        ('deny.all contains "x"', 2, "rule deny is written as a tree", "deny contains"),
        ("allow.all := true", 2, "rule allow is written as a tree", "allow if"),
        ("redact(x) := 1", 2, "rule redact is written as a function", "redact contains"),
        ("allow := 1\nallow := 2", 3, "conflict", ""),
    ],
)
def test_a_fault_has_its_line_and_a_hint(text: str, line: int, message: str, hint: str) -> None:
    found = problems(text) if "conflict" not in message else None
    if found is None:  # two values are found only when both apply: an error of the policy
        (verdict,) = RegoEngine(PolicySource((PolicyModule("p.rego", f"package fulcrum.policies.p\n{text}\n"),))).judge(
            "call", b"{}"
        )
        assert "p.rego:3: rule conflicts with rule at p.rego:2:1" in str(verdict.error)
        assert not verdict.allow
        return
    assert found[0].path == "p.rego"
    assert found[0].line == line
    assert found[0].column > 0
    assert message in found[0].message
    assert hint in found[0].hint


@pytest.mark.parametrize(
    "call",
    [
        'http.send({"method": "get", "url": "http://127.0.0.1"})',
        "opa.runtime()",
        'rand.intn("x", 3)',
        "time.now_ns()",
        'uuid.rfc4122("x")',
        'trace("x")',
        'net.lookup_ip_addr("example.com")',
    ],
)
def test_what_reaches_outside_or_changes_is_not_offered(call: str) -> None:
    name = call.partition("(")[0]
    assert f"{name} is not offered" in problems(f"allow if {call}")[0].message
    assert f"{name} is not offered" in problems(f"x := [y | y := {call}]")[0].message
    assert f"{name} is not offered" in problems(f"f(x) := {call}", "lib")[0].message


@pytest.mark.parametrize(
    "text",
    [
        "allow if f(1)\nf(x) if f(x + 1)",
        "allow if f(1)\nf(x) if g(x)\ng(x) if f(x)",
        "allow if x\nx if y\ny if x",
        "allow if f(1)\nf(x) if allow",
        "allow if data.fulcrum.policies.p.allow",
    ],
)
def test_recursion_is_refused_before_it_can_end_the_process(text: str) -> None:
    assert any("recursion" in problem.message for problem in problems(text))


def test_a_local_name_that_is_also_a_rule_is_no_recursion() -> None:
    text = "package fulcrum.policies.p\nallow if f(1)\nf(path) if path > 0\npath := 1 if f(2)\n"
    assert RegoEngine(PolicySource((PolicyModule("p.rego", text),))).judge("call", b"{}")[0].allow


@pytest.mark.parametrize(
    "package", ["fulcrum.policies", "fulcrum.policies.a.b", 'fulcrum.policies["a-b"]', "fulcrum.policies.ünï"]
)
def test_a_policys_name_is_one_plain_word(package: str) -> None:
    assert problems("allow := true", package)


def test_every_broken_file_is_named() -> None:
    modules = tuple(PolicyModule(f"{name}.rego", f"package fulcrum.policies.{name}\nallow if (") for name in "ab")
    with pytest.raises(InvalidPolicy) as caught:
        compile_source(PolicySource(modules))
    assert [problem.path for problem in caught.value.problems] == ["a.rego", "b.rego"]
    assert "a.rego:2:" in str(caught.value)


def test_data_may_not_pose_as_a_package() -> None:
    assert "fulcrum" in problems("allow := true", data={"fulcrum": {"policies": {"q": {"allow": True}}}})[0].message


def test_data_that_is_no_json_is_refused() -> None:
    assert problems("allow := true", data={"x": float("nan")})[0].path == "data"


def test_no_message_carries_the_engines_own_stack() -> None:
    for text in ("allow if (", "allow if x", "allow { 1 }"):
        assert all("backtrace" not in problem.message and "\n" not in problem.message for problem in problems(text))


def test_the_revision_is_that_of_everything() -> None:
    def revision(text: str, data: dict[str, int]) -> str:
        module = PolicyModule("p.rego", f"package fulcrum.policies.p\n{text}")
        return analyse_source(PolicySource((module,), data)).revision

    first = revision("allow := true", {"x": 1})
    assert revision("allow := true", {"x": 1}) == first
    assert revision("allow := true", {"x": 2}) != first
    assert revision("allow := false", {"x": 1}) != first


@pytest.mark.parametrize("line", ["import data.x as input", "import input.tool as data", "import data.x.input"])
def test_an_import_may_not_pose_as_the_input(line: str) -> None:
    assert any(
        "takes the name" in problem.message or "import" in problem.message
        for problem in problems(f"{line}\nallow := true")
    )
