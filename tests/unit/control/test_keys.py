import pytest

from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_mcp.control.keys import Keys, key_document
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import digest, matches, parse_key
from fulcrum_mcp.errors import Invalid, NotFound, Unprivileged

ADMIN = Principal("t", "root", "k", scopes=frozenset({"admin"}))


def keys() -> Keys:
    return Keys(MemoryKeys(), now=lambda: 5_000_000_000)


def test_a_made_key_proves_itself_and_its_text_is_nowhere_else() -> None:
    made = keys().create(ADMIN, name="ci", roles=["a", "a"], scopes=["tool:call", "tool:call"], expires_in=10)
    presented = parse_key(made.text)
    assert presented is not None
    assert presented.id == made.key.id
    assert matches(presented.secret, made.key.digest)
    assert (made.key.tenant, made.key.agent, made.key.roles, made.key.scopes) == ("t", "ci", ("a",), ("tool:call",))
    assert made.key.expires_at == 15_000_000_000
    for shown in (repr(made), repr(made.key), str(key_document(made.key))):
        assert presented.secret not in shown
        assert digest(presented.secret) not in shown


def test_two_keys_never_share_anything() -> None:
    texts = {keys().create(ADMIN, name="x").text for _ in range(50)}
    assert len(texts) == 50
    assert len({text.rpartition("_")[2] for text in texts}) == 50


@pytest.mark.parametrize("held", ["api_key:write", "api_key:write tool:call"])
def test_nobody_gives_away_more_than_they_have(held: str) -> None:
    who = Principal("t", "a", "k", scopes=frozenset(held.split()))
    for scope in ("admin", "platform", "audit:read"):
        with pytest.raises(Unprivileged, match="cannot give away"):
            keys().create(who, name="x", scopes=[scope])
    with pytest.raises(Unprivileged):
        keys().create(ADMIN, name="x", scopes=["platform"])


def test_each_use_case_needs_its_scope() -> None:
    nobody = Principal("t", "a", "k", roles=("admin",), scopes=frozenset({"tool:call"}))
    for act in (
        lambda: keys().create(nobody, name="x"),
        lambda: keys().list(nobody),
        lambda: keys().get(nobody, "x"),
        lambda: keys().revoke(nobody, "x"),
    ):
        with pytest.raises(Unprivileged, match="needs the scope"):
            act()


@pytest.mark.parametrize("name", ["", "  ", "x" * 129, "a\x1b[31mb", "a\nb"])
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        keys().create(ADMIN, name=name, agent="a")
    with pytest.raises(Invalid, match="agent"):
        keys().create(ADMIN, name="n", agent=name)


def test_another_tenants_key_does_not_exist() -> None:
    mine = keys()
    made = mine.create(ADMIN, name="x")
    other = Principal("u", "root", "k", scopes=frozenset({"admin", "platform"}))
    assert mine.get(other, made.key.id) is None
    assert mine.list(other) == []
    with pytest.raises(NotFound):
        mine.revoke(other, made.key.id)
