from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.gateway.seal import Sealer

SEALER = Sealer([b"a" * 32])


@given(st.binary(max_size=200), st.binary(max_size=10))
def test_what_was_sealed_is_opened_for_its_purpose_only(content: bytes, purpose: bytes) -> None:
    token = SEALER.seal(purpose, content)
    assert SEALER.unseal(purpose, token) == content
    assert SEALER.unseal(purpose + b"x", token) is None
    assert token.isascii()
    assert not set(token) & set("+/= \r\n")


@given(st.binary(max_size=40), st.data())
def test_no_bit_of_a_token_can_be_changed(content: bytes, data: st.DataObject) -> None:
    token = SEALER.seal(b"p", content)
    raw = bytearray(urlsafe_b64decode(token[3:] + "=" * (-len(token[3:]) % 4)))
    place = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[place // 8] ^= 1 << place % 8
    assert SEALER.unseal(b"p", "f1." + urlsafe_b64encode(bytes(raw)).decode().rstrip("=")) is None


@given(
    st.text(max_size=60)
    | st.text(max_size=60).map("f1.".__add__)
    | st.binary(max_size=60).map(lambda raw: f"f1.{raw!r}")
)
def test_what_was_not_sealed_here_is_nothing(token: str) -> None:
    assert SEALER.unseal(b"p", token) is None


def test_token_has_one_spelling() -> None:
    token = SEALER.seal(b"p", b"content")
    for other in (
        token + "=",
        token + "A",
        token[:-1],
        token.upper(),
        " " + token,
        token + "\n",
        token.replace("f1.", "f2."),
    ):
        assert SEALER.unseal(b"p", other) is None


def test_endless_token_is_not_even_decoded() -> None:
    assert SEALER.unseal(b"p", "f1." + "A" * (2 << 20)) is None


def test_two_seals_of_one_content_differ() -> None:
    assert SEALER.seal(b"p", b"x") != SEALER.seal(b"p", b"x")


def test_first_key_seals_and_all_keys_open() -> None:
    old, new = b"o" * 32, b"n" * 40
    both = Sealer([new, old])
    assert both.unseal(b"p", Sealer([old]).seal(b"p", b"x")) == b"x"
    assert Sealer([new]).unseal(b"p", both.seal(b"p", b"x")) == b"x"
    assert Sealer([old]).unseal(b"p", both.seal(b"p", b"x")) is None


@pytest.mark.parametrize("keys", [[], [b""], [b"a" * 31], [b"a" * 32, b"short"]])
def test_weak_key_is_refused_by_the_setting_that_gives_it(keys: list[bytes]) -> None:
    with pytest.raises(Invalid, match="FULCRUM_STATE_KEYS") as caught:
        Sealer(keys)
    assert "short" not in str(caught.value)
