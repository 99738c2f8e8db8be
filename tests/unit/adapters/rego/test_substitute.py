"""Patterns over texts: literal replacements, linear time, and never an unredacted answer for a bad pattern."""

import time

import pytest

from fulcrum_adapters.rego.substitute import substitute
from fulcrum_mcp.core.decision import Redaction
from fulcrum_mcp.core.redact import redact
from fulcrum_mcp.errors import Invalid


def test_every_match_in_every_text_is_replaced() -> None:
    assert list(substitute(r"\d+", ["a1b22", "none", "€5"], "#")) == ["a#b#", "none", "€#"]
    assert list(substitute("x", [], "#")) == []


@pytest.mark.parametrize("replacement", ["$1", "$0", "${name}", "$$", "\\1", ""])
def test_the_replacement_is_literal(replacement: str) -> None:
    assert list(substitute("(b)", ["abc"], replacement)) == [f"a{replacement}c"]


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "(?<=a)b", r"(a)\1", "(((a{1,100}){1,100}){1,100}){1,100}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="redact pattern"):
        substitute(pattern, ["text"], "#")
    with pytest.raises(Invalid):
        redact({"a": "text"}, [Redaction(pattern=pattern)], substitute)


def test_text_that_the_engine_cannot_read_is_refused() -> None:
    with pytest.raises(Invalid):
        substitute("x", ["\ud800"], "#")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "[a-z]+@x"])
def test_no_pattern_stalls_on_a_text(pattern: str) -> None:
    begun = time.process_time()
    substitute(pattern, ["a" * 100_000], "#")
    assert time.process_time() - begun < 2
