"""No input ends the process or allows by accident: hostile JSON through every starter policy (threat 11)."""

import json
import random
from typing import Any

import pytest

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import starter
from fulcrum_adapters.rego.library import starter_names
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import combine

PHASES: tuple[Phase, ...] = ("list", "call", "result")
KEYS = (
    *(
        "phase",
        "method",
        "principal",
        "server",
        "tool",
        "arguments",
        "result",
        "context",
        "name",
        "roles",
        "annotations",
    ),
    *(
        "readOnlyHint",
        "path",
        "sql",
        "url",
        "time",
        "weekday",
        "hour",
        "resource",
        "uri",
        "prompt",
        "history",
        "taints",
    ),
)
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e300, 2**63, 2**64, 2**70, "", "a", "/etc/passwd", "/srv/../x", "\x00", "\uffff"),
    *(
        "\U0001d54f",
        "é",
        "select 1; drop",
        "https://a@b\\c",
        "file:///",
        "%2e%2e",
        "-----BEGIN PRIVATE KEY-----",
        "`",
        "true",
    ),
    *("a" * 5000, "/*" * 500, "'" * 501, "(" * 300, "{" * 300),
)


def value(dice: random.Random, depth: int) -> Any:
    roll = dice.random()
    if depth == 0 or roll < 0.4:
        return dice.choice(SCALARS)
    if roll < 0.5:
        return [value(dice, depth - 1) for _ in range(dice.randrange(5))]
    return {dice.choice(KEYS): value(dice, depth - 1) for _ in range(dice.randrange(7))}


def storm(count: int, seed: int) -> None:
    dice = random.Random(seed)
    engines = [RegoEngine(starter(name)) for name in starter_names()]
    good = json.dumps({"phase": "call", "server": {"name": "time"}, "tool": {"name": "now"}, "arguments": {}}).encode()
    before = [engine.judge("call", good) for engine in engines]
    for _ in range(count):
        phase = dice.choice(PHASES)
        document = {key: value(dice, 5) for key in dice.sample(KEYS[:8], dice.randrange(8))}
        raw = json.dumps({**document, "phase": phase}).encode()
        if dice.random() < 0.1:
            raw = raw[: dice.randrange(len(raw))]
        engine = dice.choice(engines)
        verdicts = engine.judge(phase, raw)
        assert tuple(verdict.policy for verdict in verdicts) == engine.info.names
        assert all(verdict.error is None or not verdict.allow for verdict in verdicts)
        combine(verdicts, phase)
    assert [engine.judge("call", good) for engine in engines] == before


def test_a_storm_of_inputs_changes_nothing() -> None:
    storm(4_000, seed=20260728)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_a_long_storm_of_inputs_changes_nothing(seed: int) -> None:
    storm(20_000, seed)
