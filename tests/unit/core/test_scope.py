import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.budget import Budget, Scope, ScopeKind
from fulcrum_mcp.core.scope import OPERATOR, BudgetIndex, matching, parse_scope
from fulcrum_mcp.errors import Invalid

SUBJECT: dict[str, str | None] = {
    "tenant": "acme",
    "agent": "bot",
    "key": "k1",
    "workflow": None,
    "envelope": "",
    "server": "files",
    "tool": "files__read",
}


def budget(kind: ScopeKind, scope_id: str | None = None, tenant: str = "acme") -> Budget:
    return Budget(f"{tenant}/{kind}:{scope_id}", tenant, "b", Scope(kind, scope_id), {"calls": 1})


def buckets(*budgets: Budget, **changes: str | None) -> list[str]:
    return [match.bucket for match in matching(budgets, SUBJECT | changes)]


def test_budget_without_id_has_a_bucket_for_each_value() -> None:
    assert buckets(budget("agent")) == ["bot"]
    assert buckets(budget("agent"), agent="other") == ["other"]


def test_budget_with_id_matches_that_value_only() -> None:
    assert buckets(budget("tool", "files__read")) == ["files__read"]
    assert buckets(budget("tool", "files__write")) == []


@pytest.mark.parametrize("kind", ["workflow", "envelope", "model"])
def test_call_without_a_value_of_the_kind_does_not_match(kind: ScopeKind) -> None:
    assert buckets(budget(kind)) == []


def test_global_of_a_tenant_is_that_tenant_only() -> None:
    assert buckets(budget("global")) == ["global"]
    assert buckets(budget("global"), tenant="other") == []


def test_another_tenants_budget_never_matches() -> None:
    assert buckets(budget("agent", "bot", tenant="other"), budget("tenant", "acme", tenant="other")) == []


def test_operators_budget_binds_all_tenants_and_keeps_their_names_apart() -> None:
    shared = BudgetIndex([budget("global", tenant=OPERATOR), budget("agent", "bot", tenant=OPERATOR)])
    assert [m.bucket for m in shared.matching(SUBJECT)] == ["global", "acme/bot"]
    assert [m.bucket for m in shared.matching(SUBJECT | {"tenant": "a/b"})] == ["global", "a%2Fb/bot"]
    assert shared.matching(SUBJECT | {"tenant": ""}) == ()


@given(st.lists(st.sampled_from(["bot", "other", "third"]), max_size=20))
def test_index_answers_the_same_every_time(agents: list[str]) -> None:
    budgets = [budget("agent"), budget("agent", "bot"), budget("server", "files"), budget("global")]
    index = BudgetIndex(budgets)
    for agent in agents:
        found = {match.budget.id: match.bucket for match in index.matching(SUBJECT | {"agent": agent})}
        wanted = {"acme/agent:None": agent, "acme/server:files": "files", "acme/global:None": "global"}
        assert found == wanted | ({"acme/agent:bot": "bot"} if agent == "bot" else {})


def test_more_values_than_are_remembered_still_match() -> None:
    index = BudgetIndex([budget("agent")])
    for number in range(10_000):
        assert index.matching(SUBJECT | {"agent": f"a{number}"})[0].bucket == f"a{number}"


def test_scope_is_read() -> None:
    assert parse_scope("agent", "x") == Scope("agent")
    assert parse_scope("tool:files__read:v2", "x") == Scope("tool", "files__read:v2")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("agnet", 'Did you mean "agent"?'),
        ("", "is not KIND"),
        ("agent:", "ends in a colon"),
        ("global:acme", "write global, or tenant:acme"),
        (3, "must be text"),
    ],
)
def test_wrong_scope_says_what_and_where(value: object, says: str) -> None:
    with pytest.raises(Invalid, match=r"^--scope: ") as caught:
        parse_scope(value, "--scope")
    assert says in str(caught.value)
