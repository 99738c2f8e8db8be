"""The script in Lua against the rules in Python: the same batches, the same answers, balances and events."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from contract.ledgers import NOON, SECOND
from contract.redis_books import REAL, open_books
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum_adapters.memory.ledger import MemoryLedger
from fulcrum_adapters.redis import RedisLedger, RedisStore
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.budget import (
    Amounts,
    Budget,
    Commit,
    Expire,
    Match,
    Operation,
    Rate,
    Release,
    Renew,
    Reserve,
    Scope,
)

pytestmark = [pytest.mark.service, pytest.mark.parts]

HARD = Budget("hard", "t", "hard", Scope("agent"), {"calls": 7, "usd_micros": 90}, "60", thresholds=(1, 50, 80, 100))
SOFT = Budget("soft", "t", "soft", Scope("agent"), {"tokens": 40, "usd_micros": 30}, "hour", "soft", (33,))
WARN = Budget("warn", "t", "warn", Scope("agent"), {"calls": 3}, "day", "warn", (100, 150), "Europe/Paris")
EVER = Budget("ever", "u", "ever", Scope("global"), {"usd_micros": MAX_AMOUNT, "bytes": 10**13}, "infinite")
PACED = Budget("paced", "t", "paced", Scope("agent"), {"calls": 20}, "minute", rate=Rate(7, 60, 3))
ASKED = Budget("asked", "t", "asked", Scope("agent"), action="soft", rate=Rate(5, 1, 4))
TOLD = Budget("told", "t", "told", Scope("agent"), action="warn", rate=Rate(3, 10, 2))
NAMES = Budget("7:na|me", "1:t", "x", Scope("agent"), {"calls": 9, "seconds": 50}, "quarter")
BUDGETS = (HARD, SOFT, WARN, EVER, PACED, ASKED, TOLD, NAMES, replace(HARD, limits={"calls": 4}, thresholds=(25,)))
BUCKETS = ("a", "5:calls1:0", "h\u00e9", "", "a:b|c\x00")

amounts = st.builds(
    Amounts,
    st.sampled_from([0, 1, 1, 1, 2, -1]),
    st.sampled_from([0, 3, 10, 40, 10**6, MAX_AMOUNT, MAX_AMOUNT + 1, 2**70, -5]),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([0, 5 * 10**12, 10**15]),
    st.integers(0, 9),
)
modest = st.builds(Amounts, st.integers(0, 2), st.integers(0, 25), st.integers(0, 9), st.integers(0, 9))
matches = st.lists(st.builds(Match, st.sampled_from(BUDGETS), st.sampled_from(BUCKETS)), max_size=4)
ids = st.sampled_from([f"c{n}" for n in range(8)])
legs = st.integers(0, 1)
writers = st.sampled_from(["w1", "w2:\u00e9"])
moves = st.sampled_from([0, 0, 1_000, SECOND // 7 * 1_000 // 1_000, SECOND, 9 * SECOND, 61 * SECOND, -30 * SECOND])


@st.composite
def operations(draw: st.DrawFn) -> tuple[int, list[Operation]]:
    """How far the clock moves, and one batch."""
    step = draw(moves) // 1_000 * 1_000
    batch: list[Operation] = []
    for _ in range(draw(st.integers(1, 8))):
        call, leg = draw(ids), draw(legs)
        kind = draw(st.integers(0, 9))
        if kind < 5:
            approved = frozenset(draw(st.sets(st.sampled_from(["soft", "asked"]))))
            cost = draw(st.one_of(modest, modest, amounts))
            held = tuple(draw(matches))
            batch.append(Reserve(call, leg, "t", draw(writers), held, cost, 0, draw(st.integers(1, 100)), approved))
        elif kind < 7:
            batch.append(Commit(call, leg, draw(st.one_of(st.none(), modest, amounts)), 0))
        elif kind == 7:
            batch.append(Release(call, leg, 0))
        elif kind == 8:
            batch.append(Renew(draw(writers), 0, draw(st.integers(1, 100))))
        else:
            batch.append(Expire(0))
    return step, batch


numbers = itertools.count()


@pytest.fixture(params=REAL)
def store(request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    opened = open_books(request.getfixturevalue(request.param))
    yield opened
    opened.close()


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(script=st.lists(operations(), min_size=1, max_size=12))
def test_script_answers_as_the_rules_do(store: RedisStore, script: list[tuple[int, list[Operation]]]) -> None:
    books = open_books(store.config.url, prefix=f"same-{os.getpid()}-{next(numbers)}:")
    try:
        same(RedisLedger(books), script)
    finally:
        books.close()


def same(
    ledger: RedisLedger, script: list[tuple[int, list[Operation]]], budgets: Sequence[Budget] = BUDGETS[:-1]
) -> None:
    model, at = MemoryLedger(), NOON
    for step, batch in script:
        at += step
        dated = [replace(operation, at=at) for operation in batch]
        assert list(ledger.apply(dated)) == list(model.apply(dated))
        for budget in budgets:
            known = {usage.bucket: usage for usage in model.usage([budget], at)}
            assert {usage.bucket: usage for usage in ledger.usage([budget], at)} == known
        looked = [Match(budget, bucket) for budget in BUDGETS for bucket in BUCKETS[:2]]
        assert tuple(ledger.peek(looked, at)) == model.peek(looked, at)
        for writer in ("w1", "w2:\u00e9"):
            assert sorted(ledger.open(writer)) == sorted(model.open(writer))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"used >= a.marks[i + 1]", b"used > a.marks[i + 1]"),
        (b"used + wanted > limit", b"used + wanted > limit + 1"),
        (b"a.committed = math.max(a.committed - held, 0)", b"a.committed = a.committed"),
    ],
)
def test_a_planted_difference_is_seen(valkey_url: str, right: bytes, wrong: bytes) -> None:
    books = open_books(valkey_url)
    script = books._ledger
    assert right in script.body
    script.body = script.body.replace(right, wrong)
    script.sha = hashlib.sha1(script.body).hexdigest()
    cents = replace(HARD, limits={"calls": 2}, thresholds=(50,))

    def asked(number: int, at: int = 0) -> Reserve:
        return Reserve(f"c{number}", 0, "t", "w1", (Match(cents, "a"),), Amounts(), at, 30)

    batches: list[tuple[int, list[Operation]]] = [
        (0, [asked(1), asked(2), asked(3)]),
        (31 * SECOND, [Expire(0), Commit("c1", 0, Amounts(calls=0), 0)]),
    ]
    with pytest.raises(AssertionError):
        same(RedisLedger(books), batches, [cents])
    books.close()
