from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.redis.naming import account_key, account_of, joined, microseconds

names = st.text(alphabet=st.sampled_from("a1:|\x00é☃0"), max_size=6)


@given(st.lists(names, max_size=4), st.lists(names, max_size=4))
def test_different_names_make_different_keys(one: list[str], other: list[str]) -> None:
    assert (joined(*one) == joined(*other)) == (one == other)


@given(names, names, names, st.integers(0, 2**63))
def test_account_is_read_back_from_its_key(owner: str, budget: str, bucket: str, start: int) -> None:
    assert account_of(account_key(owner, budget, bucket, "calls", start)) == (owner, budget, bucket, "calls", start)


def test_name_that_is_no_unicode_is_spelled_out() -> None:
    assert joined("\ud800") == "6:\\ud800"


def test_times_stay_within_what_a_double_counts() -> None:
    assert [microseconds(at) for at in (-5, 1_999, 2**63 - 1)] == [0, 1, 2**52]
