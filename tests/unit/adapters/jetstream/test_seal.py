"""A seal fits what it was made for, and nothing else."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.jetstream.seal import SEAL, Seal, id_of
from fulcrum_mcp.errors import Invalid

KEY = bytes(range(32))
OURS, OTHERS = Seal(KEY), Seal(bytes(32))
SUBJECT, NAME, BODY = "fulcrum.audit.acme", "w1=2Eacme:1-2", b"records"


def headers(subject: str = SUBJECT, name: str = NAME, body: bytes = BODY, *, cut: bool = False) -> dict[str, str]:
    seal = OURS.letter(subject, name, body, cut=cut)
    return {SEAL: seal, "Nats-Msg-Id": id_of(name, seal)}


def test_a_message_fits_as_it_was_sealed() -> None:
    assert OURS.fits(SUBJECT, headers(), BODY)
    assert OURS.fits(SUBJECT, headers(cut=True), BODY, cut=True)


@pytest.mark.parametrize(
    ("subject", "given_headers", "body", "cut"),
    [
        pytest.param(SUBJECT, None, BODY, False, id="no headers"),
        pytest.param(SUBJECT, {}, BODY, False, id="no seal"),
        pytest.param(SUBJECT, {"Nats-Msg-Id": headers()["Nats-Msg-Id"]}, BODY, False, id="a name alone"),
        pytest.param(SUBJECT, {SEAL: headers()[SEAL]}, BODY, False, id="a seal alone"),
        pytest.param("fulcrum.audit.other", headers(), BODY, False, id="another tenant"),
        pytest.param(SUBJECT, headers(), BODY + b" ", False, id="another body"),
        pytest.param(SUBJECT, headers(), BODY, True, id="taken for one that speaks of a parcel"),
        pytest.param(SUBJECT, headers(cut=True), BODY, False, id="taken for a parcel"),
        pytest.param(
            SUBJECT, headers() | {"Nats-Msg-Id": f"{NAME}9:{headers()[SEAL][:16]}"}, BODY, False, id="renamed"
        ),
        pytest.param(SUBJECT, headers() | {"Nats-Msg-Id": f"{NAME}:{'0' * 16}"}, BODY, False, id="known by another id"),
        pytest.param(SUBJECT, headers() | {SEAL: "\ufffd\udcff"}, BODY, False, id="no text of ours"),
        pytest.param(SUBJECT, headers() | {SEAL: headers()[SEAL][:-1]}, BODY, False, id="cut off"),
    ],
)
def test_nothing_else_fits(subject: str, given_headers: dict[str, str] | None, body: bytes, *, cut: bool) -> None:
    assert not OURS.fits(subject, given_headers, body, cut=cut)


def test_another_key_fits_nothing_and_is_told_from_ours() -> None:
    assert not OTHERS.fits(SUBJECT, headers(), BODY)
    assert not OTHERS.confirms({SEAL: OURS.stored("w.t", 3)}, "w.t", 3)
    assert OURS.check != OTHERS.check
    assert len(OURS.check) == 16
    with pytest.raises(Invalid, match="shorter"):
        Seal(b"short")
    assert KEY.hex() not in repr(OURS)


def test_a_confirmation_holds_for_its_chain_and_its_number_only() -> None:
    given_headers = {SEAL: OURS.stored("w1.acme", 12)}
    assert OURS.confirms(given_headers, "w1.acme", 12)
    for chain, seq in (("w1.acme", 13), ("w1.acme", 1), ("w1.acme1", 2), ("w2.acme", 12)):
        assert not OURS.confirms(given_headers, chain, seq)
    assert not OURS.confirms(None, "w1.acme", 12)


def test_a_seal_is_what_the_map_says() -> None:
    """Worked out by hand: servers and processors of different versions must agree."""
    digest = hashlib.sha256(BODY).digest()
    parts = [b"parcel", SUBJECT.encode(), NAME.encode(), digest]
    said = b"fulcrum nats 1\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert OURS.letter(SUBJECT, NAME, BODY) == hmac.new(KEY, said, hashlib.sha256).hexdigest()


@given(st.lists(st.tuples(st.text(), st.text(), st.binary()), min_size=2, max_size=2, unique=True))
def test_no_two_messages_have_one_seal(pair: list[tuple[str, str, bytes]]) -> None:
    (one, other) = pair
    assert OURS.letter(*one) != OURS.letter(*other)
    assert OURS.letter(*one) != OURS.letter(*one, cut=True)
