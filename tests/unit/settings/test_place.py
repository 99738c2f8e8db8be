import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.settings.place import json_places, plain_json, toml_places

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [found for key, inner in items for found in [(*path, key), *paths(inner, (*path, key))]]


@given(VALUES)
def test_plain_json_is_left_as_it_is(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    assert plain_json(text) == text


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), VALUES, max_size=4))
def test_every_path_of_a_json_text_has_the_line_it_stands_in(value: Any) -> None:
    text = json.dumps(value, indent=1)
    places = json_places(text, "f")
    lines = text.split("\n")
    for path in paths(value):
        if not all(isinstance(part, int) or (part.isascii() and part.isalnum()) for part in path):
            continue
        line = lines[int(places.at(path).removeprefix("f:")) - 1]
        if isinstance(path[-1], str):
            assert line.strip().startswith(json.dumps(path[-1]) + ":")


def test_toml_paths_have_the_line_they_stand_in() -> None:
    text = '''\
# one
"a b" = """
[[not]]
x = 1
"""
c.d = [
  1, # ]
  "]",
]
[[t]]
n = 'a # b'
[t.in]
k = {z = 1}
[[t]]
n = "\\"["
[t.in]
k = 2
'''
    tomllib.loads(text)
    places = toml_places(text, "f")
    found = {path: places.at(path) for path in (("a b",), ("c", "d"), ("t", 0, "n"), ("t", 0, "in", "k", "z"))}
    assert list(found.values()) == ["f:2", "f:6", "f:11", "f:13"]
    assert places.at(("t", 1, "n")) == "f:15"
    assert places.at(("t", 1, "in", "k")) == "f:17"
    assert places.at(("t", 1, "missing")) == "f:14"
    assert places.at(("nowhere",)) == "f"
