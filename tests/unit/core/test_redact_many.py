"""However much a policy takes out of a result: in bounded time, and nothing of it survives elsewhere."""

import time

from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.core.decision import Redaction
from fulcrum_mcp.core.redact import redact

ROWS = [Redaction(pointer="/structuredContent/rows")]


def result(rows: list[str], texts: list[str]) -> dict[str, object]:
    return {"structuredContent": {"rows": rows}, "content": [{"type": "text", "text": text} for text in texts]}


@given(
    st.lists(st.text("ab", min_size=6, max_size=12), min_size=20, max_size=60, unique=True),
    st.lists(st.text("abc", max_size=60), max_size=5),
)
def test_nothing_of_many_removed_strings_survives(rows: list[str], texts: list[str]) -> None:
    found, _ = redact(result(rows, texts), ROWS, substitute)
    for part in found["content"]:
        assert not any(row in piece for row in rows for piece in part["text"].split("[redacted]"))


def test_texts_without_removed_strings_stay_as_they_are() -> None:
    rows = [f"row-{number:06}" for number in range(100)]
    found, _ = redact(result(rows, ["row-00001", "nothing of them"]), ROWS, substitute)
    assert [part["text"] for part in found["content"]] == ["row-00001", "nothing of them"]


def test_many_removed_strings_and_many_texts_take_no_longer_than_their_size() -> None:
    count = 20_000
    rows = [f"row value {number:06}" for number in range(count)]
    began = time.process_time()
    found, _ = redact(result(rows, [f"here is {row}" for row in rows]), ROWS, substitute)
    assert time.process_time() - began < 5
    assert {part["text"] for part in found["content"]} == {"here is [redacted]"}


def test_strings_made_to_be_compared_without_end_cost_their_text() -> None:
    rows = ["a" * length + "b" for length in range(6, 1500)]
    began = time.process_time()
    found, _ = redact(result(rows, ["a" * 200_000]), ROWS, substitute)
    assert time.process_time() - began < 5
    assert found["content"][0]["text"] == "[redacted]"
