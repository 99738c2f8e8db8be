"""OPA's own conformance cases, as far as the engine answers them as OPA does, through our wrapper.

The cases are data of the Open Policy Agent project (Apache-2.0), one JSON object a line. The list may only grow.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from fulcrum_adapters.rego import native

CASES = [json.loads(line) for line in Path(__file__).with_name("opa_v1_cases.jsonl").read_text().splitlines()]
ANY_ORDER = {"walkbuiltin/arrays no path", "walkbuiltin/objects no path", "withkeyword/invalidate comprehension cache"}
"""OPA leaves the order of these elements open."""

FIRST_ONLY = "json_match_schema/"
"""The engine describes the faults of a document in its own words; whether there are any is the same."""

CATEGORIES = sorted({case["cat"] for case in CASES})


def test_the_list_never_shrinks() -> None:
    assert len(CASES) >= 1583
    assert len({json.dumps(case, sort_keys=True) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_answers_as_opa_does(category: str) -> None:
    wrong = [case["note"] for case in CASES if case["cat"] == category and not answers(case)]
    assert wrong == []


def test_the_comparison_finds_a_wrong_answer() -> None:
    case = next(case for case in CASES if case.get("want_result") == [{"x": [4]}])
    assert answers(case)
    assert not answers({**case, "want_result": [{"x": [5]}]})
    assert not answers({**case, "want_result": []})
    failing = next(case for case in CASES if "want_error" in case)
    assert not answers({**failing, "modules": ["package a\n"], "query": "1 = x"})


def answers(case: dict[str, Any]) -> bool:
    wants_error = "want_error" in case or "want_error_code" in case
    try:
        got = ask(case)
    except native.RegoFault:
        return wants_error
    if wants_error:
        return False
    want = case["want_result"] if "want_result" in case else case["want_plan_result"]
    if case["note"].startswith(FIRST_ONLY):
        return bool(got[0]["x"][0] is want[0]["x"][0])
    if case["note"] in ANY_ORDER:
        return bool(ordered(got) == ordered(want))
    return same(got, want, any_order=True)


def ask(case: dict[str, Any]) -> list[Any]:
    """The bindings of the query."""
    modules = [(f"module{number}.rego", text) for number, text in enumerate(case.get("modules", []))]
    given = "input" in case or "input_term" in case
    engine = native.build(modules, case.get("data") or {}, evaluate_once=given)
    document = json.dumps(case["input"]) if "input" in case else None
    if "input_term" in case:
        term = native.query(engine, f"x := {case['input_term']}")
        document = json.dumps(term["result"][0]["bindings"]["x"])
    if document is not None:
        native.guarded(lambda: engine.set_input_json(document))
    rows = native.query(engine, case["query"]).get("result", [])
    return [row.get("bindings", {}) for row in rows]


def ordered(value: Any) -> Any:
    if isinstance(value, list):
        return sorted((ordered(item) for item in value), key=json.dumps)
    return {key: ordered(item) for key, item in value.items()} if isinstance(value, dict) else value


def same(got: Any, want: Any, *, any_order: bool = False) -> bool:
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(same(got[key], want[key]) for key in want)
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return False
        if all(same(mine, theirs) for mine, theirs in zip(got, want, strict=True)):
            return True
        return any_order and sorted(map(json.dumps, got)) == sorted(map(json.dumps, want))
    if isinstance(want, bool) or isinstance(got, bool):
        return want is got
    return bool(want == got)
