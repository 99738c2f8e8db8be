import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.settings.expand import Missing, expand

ENVIRON = {"A": "one", "EMPTY": "", "REF": "${A}"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x${A}y${A}", "xoneyone"),
        ("${env:A}", "one"),
        ("${B:-two}", "two"),
        ("${B:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-three}", "three"),
        ("${REF}", "${A}"),
        ("$A $$ {A} ${", "$A $$ {A} ${"),
    ],
)
def test_references_become_values_once(text: str, value: str) -> None:
    assert expand(text, ENVIRON) == value


@pytest.mark.parametrize("text", ["${B}", "${}", "${input:x}", "${a b}", "${workspaceFolder}", "${1}"])
def test_what_cannot_be_resolved_is_named(text: str) -> None:
    with pytest.raises(Missing) as caught:
        expand(text, ENVIRON)
    assert text in str(caught.value)


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_references_stays(text: str) -> None:
    assert expand(text, {}) == text
