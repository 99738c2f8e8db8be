"""Derived once for the very object, never for one that merely looks the same or came to lie in its place."""

from fulcrum_mcp.gateway.identity_cache import IdentityCache


class _Thing:
    def __init__(self, name: str) -> None:
        self.name = name


def test_the_same_object_is_derived_from_once() -> None:
    made: list[str] = []

    def make(thing: _Thing) -> int:
        made.append(thing.name)
        return len(made)

    cache = IdentityCache(make)
    one, other = _Thing("same"), _Thing("same")
    assert (cache(one), cache(one), cache(other)) == (1, 1, 2)


def test_a_new_object_in_an_old_ones_place_is_not_mistaken_for_it() -> None:
    cache: IdentityCache[_Thing, str] = IdentityCache(lambda thing: thing.name, size=2)
    for number in range(1000):
        name = f"thing {number}"
        assert cache(_Thing(name)) == name
