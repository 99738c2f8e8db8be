import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import SCOPES, allows, digest, format_key, matches, parse_key

SECRET = "A1b2" * 10


@pytest.mark.parametrize(
    "token",
    [
        "",
        "short",
        "flcrm_sk_abc",
        "flcrm_sk_abc_" + "a" * 31,
        "flcrm_sk__" + "a" * 40,
        "flcrm_sk_ABC_" + "a" * 40,
        "flcrm_sk_abc_" + "a" * 40 + "\n",
        "flcrm_sk_abc_" + "a" * 40 + "-",
        "flcrm_sk_abc_" + "a" * 300,
        "x" * 31,
        "x" * 513,
        "ä" * 40,
        "x y" * 20,
    ],
)
def test_what_cannot_be_a_key_is_not_taken_for_one(token: str) -> None:
    assert parse_key(token) is None


def test_a_key_comes_apart_as_it_was_put_together() -> None:
    assert parse_key(format_key("k1", SECRET)) == ("k1", SECRET)


def test_an_operators_own_secret_is_found_by_an_id_of_its_hash() -> None:
    found = parse_key("z" * 40)
    assert found is not None
    assert found.secret == "z" * 40
    assert found.id != "z" * 40


def test_a_presented_key_never_shows_its_secret() -> None:
    assert SECRET not in repr(parse_key(format_key("k1", SECRET)))


@given(st.text(min_size=1), st.text(min_size=1))
def test_only_the_secret_itself_matches_its_digest(one: str, other: str) -> None:
    one, other = one.encode(errors="ignore").decode(), other.encode(errors="ignore").decode()
    assert matches(one, digest(one))
    assert matches(other, digest(one)) == (one == other)


@pytest.mark.parametrize("scope", SCOPES)
def test_admin_has_all_but_platform_and_platform_has_all(scope: str) -> None:
    def who(*scopes: str) -> Principal:
        return Principal("t", "a", "k", scopes=frozenset(scopes))

    assert allows(who("admin"), scope) == (scope != "platform")
    assert allows(who("platform"), scope)
    assert allows(who(scope), scope)
    assert not allows(who(), scope)
    assert not allows(Principal("t", "a", "k", roles=(scope, "admin")), scope)
