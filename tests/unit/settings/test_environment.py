from pathlib import Path
from typing import Any

import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.environment import lay_over, read_variable
from fulcrum_mcp.settings.place import Places


def test_one_line_break_at_the_end_of_a_file_is_not_part_of_the_value(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for content, value in (("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")):
        file.write_bytes(content.encode())
        assert read_variable("X", {"X_FILE": str(file)}) == value


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"x" * (1 << 21)])
def test_a_file_that_holds_no_value_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(Invalid, match="X_FILE: "):
        read_variable("X", {"X_FILE": str(file)})


def test_empty_variables_count_as_unset() -> None:
    assert read_variable("X", {"X": "", "X_FILE": ""}) is None


def test_a_value_laid_over_changes_nothing_else_and_knows_its_place() -> None:
    inner = {"b": 1}
    raw: dict[str, Any] = {"a": inner, "c": "text"}
    places = Places("f")
    lay_over(raw, ("a", "x"), 2, "VAR", places)
    lay_over(raw, ("c", "y"), 3, "VAR", places)
    assert raw == {"a": {"b": 1, "x": 2}, "c": {"y": 3}}
    assert inner == {"b": 1}
    assert places.at(("a", "x", "deeper")) == "VAR"
