"""Names travel in subjects and come back as they were."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.jetstream.subjects import (
    audit_subject,
    name_of,
    stored_subject,
    tenant_of,
    token_of,
)
from fulcrum_mcp.errors import Invalid

NAMES = st.text(st.characters(), max_size=60)


@given(NAMES)
def test_a_name_is_one_safe_token_and_comes_back(name: str) -> None:
    token = token_of(name)
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", token)
    assert name_of(token) == name
    assert tenant_of(audit_subject(name)) == name


@given(NAMES, NAMES)
def test_two_names_never_share_a_token(one: str, other: str) -> None:
    assert (token_of(one) == token_of(other)) == (one == other)


def test_subjects_have_their_levels() -> None:
    assert audit_subject("acme") == "fulcrum.audit.acme"
    assert audit_subject("a.b") == "fulcrum.audit.a=2Eb"
    assert stored_subject("w1.acme") == "fulcrum.stored.w1=2Eacme"


@pytest.mark.parametrize("token", ["", "a.b", "=4", "=41", "=e9", "=E9", "a*", "a b", ">", "a=", "=ZZ"])
def test_what_was_not_made_here_is_no_token(token: str) -> None:
    with pytest.raises(Invalid):
        name_of(token)


@pytest.mark.parametrize("subject", ["fulcrum.audit", "fulcrum.stored.a", "fulcrum.audit.a.b", "fulcrum.audit.=41"])
def test_a_foreign_subject_belongs_to_nobody(subject: str) -> None:
    assert tenant_of(subject) is None


def test_a_name_too_long_for_a_subject_is_refused() -> None:
    with pytest.raises(Invalid, match="too long"):
        token_of("ü" * 400)
