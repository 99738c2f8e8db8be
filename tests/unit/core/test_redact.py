"""Taking text out of values: pointers, patterns, text twins, known secrets; and nothing else changes."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.decision import Redaction
from fulcrum_mcp.core.redact import MASK, has_secret_key, mask_secrets, may_hold_secret, redact


def substitute(pattern: str, texts: Sequence[str], replacement: str) -> list[str]:
    """For tests only: the adapter's is linear."""
    return [re.sub(pattern, lambda _: replacement, text) for text in texts]


def pointer(*pointers: str) -> list[Redaction]:
    return [Redaction(pointer=each) for each in pointers]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize(
    ("where", "want"),
    [
        ("/a", {"a": MASK, "l": [1, {"b": 2}], "x/y": 1, "m~n": 2, "": 3}),
        ("/l/1/b", {"a": "s", "l": [1, {"b": MASK}], "x/y": 1, "m~n": 2, "": 3}),
        ("/l/0", {"a": "s", "l": [MASK, {"b": 2}], "x/y": 1, "m~n": 2, "": 3}),
        ("/x~1y", {"a": "s", "l": [1, {"b": 2}], "x/y": MASK, "m~n": 2, "": 3}),
        ("/m~0n", {"a": "s", "l": [1, {"b": 2}], "x/y": 1, "m~n": MASK, "": 3}),
        ("/", {"a": "s", "l": [1, {"b": 2}], "x/y": 1, "m~n": 2, "": MASK}),
    ],
)
def test_a_pointer_replaces_what_it_names(where: str, want: Any) -> None:
    value = {"a": "s", "l": [1, {"b": 2}], "x/y": 1, "m~n": 2, "": 3}
    before = json.dumps(value)
    assert redact(value, pointer(where), substitute) == (want, 1)
    assert json.dumps(value) == before


@pytest.mark.parametrize(
    "where", ["/none", "/l/2", "/l/-", "/l/01", "/l/-1", "/l/99999999999999999999", "/a/b", "/l/x", "/l/²"]
)
def test_a_pointer_to_nothing_changes_nothing(where: str) -> None:
    value = {"a": "s", "l": [1, {"b": 2}]}
    new, count = redact(value, pointer(where), substitute)
    assert new is value
    assert count == 0


def test_a_pattern_reaches_every_string_and_key() -> None:
    value = {"mail a@b": ["x a@b y", {"n": 1}], "k": "none"}
    new, count = redact(value, [Redaction(pattern="a@b", replacement="*")], substitute)
    assert new == {"mail *": ["x * y", {"n": 1}], "k": "none"}
    assert count == 2


def test_no_member_vanishes_when_two_keys_become_one() -> None:
    new, _ = redact({"a1": 1, "a2": 2}, [Redaction(pattern="[0-9]", replacement="")], substitute)
    assert sorted(new.values()) == [1, 2]


def test_the_text_twin_of_structured_content_is_redacted_with_it() -> None:
    data = {"email": "a@b", "age": 41}
    value = {"content": [{"type": "text", "text": json.dumps(data, indent=1)}], "structuredContent": data}
    new, _ = redact(value, pointer("/structuredContent/email", "/structuredContent/age"), substitute)
    assert new["structuredContent"] == {"email": MASK, "age": MASK}
    assert json.loads(new["content"][0]["text"]) == {"email": MASK, "age": MASK}


def test_a_string_that_was_removed_survives_in_no_other_text() -> None:
    value = {
        "content": [{"type": "text", "text": "Write to anna@example.com today"}],
        "structuredContent": {"to": "anna@example.com"},
    }
    new, _ = redact(value, pointer("/structuredContent/to"), substitute)
    assert "anna" not in json.dumps(new)


def test_a_pattern_sees_through_the_escapes_of_json_in_text() -> None:
    text = '{"name": "\\u0061nna", "n": 1}'
    new, _ = redact(
        {"content": [{"type": "text", "text": text}]}, [Redaction(pattern="anna", replacement="*")], substitute
    )
    assert json.loads(new["content"][0]["text"]) == {"name": "*", "n": 1}


def test_numbers_in_a_twin_stay_what_they_are_or_go() -> None:
    big = {"content": [{"type": "text", "text": '{"n": 123456789012345678901234567890, "s": "anna"}'}]}
    new, _ = redact(big, [Redaction(pattern="anna", replacement="*")], substitute)
    assert "123456789012345678901234567890" in new["content"][0]["text"]
    huge = {"content": [{"type": "text", "text": '{"n": 1e999, "s": "anna"}'}]}
    new, _ = redact(huge, [Redaction(pattern="anna", replacement="*")], substitute)
    assert "Infinity" not in new["content"][0]["text"]
    assert "anna" not in new["content"][0]["text"]


def test_a_bad_pattern_is_the_callers_to_handle() -> None:
    with pytest.raises(re.error):
        redact({"a": "b"}, [Redaction(pattern="(")], substitute)


@given(JSON)
def test_nothing_to_do_changes_nothing(value: Any) -> None:
    assert redact(value, (), substitute)[0] is value
    new, count = redact(value, [Redaction(pattern="\x00\x01never")], substitute)
    assert new == value
    assert count == 0


SECRETS = [
    "sk-abcdefghijklmnop1234",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_abcdefghijklmnopqrstuvwxyz",
    "glpat-abcdefghijklmnopqrst",
    "xoxb-1234567890-abcdefgh",
    "AKIAABCDEFGHIJKLMNOP",
    "AIza" + "a" * 35,
    "flcrm_sk_abcd1234_abcdefghijklmnopqrstuvwxyz012345",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "Bearer abcdefghijklmnop",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIE",
    "https://user:hunter22@example.com/",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_masked_wherever_it_stands(secret: str) -> None:
    core = re.sub(r"^https://|@example.com/$", "", secret)
    for value in ({"a": [f"x {secret} y"]}, {secret: 1}, [secret], secret):
        masked, count = mask_secrets(value)
        assert core not in json.dumps(masked)
        assert count == 1
        assert may_hold_secret(json.dumps(value).encode()) or has_secret_key(value)


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Passwd",
        "client_secret",
        "Authorization",
        "apiKey",
        "x-api-key",
        "access_token",
        "refreshToken",
        "cookie",
        "token",
        "otp",
    ],
)
def test_a_value_under_a_telling_name_is_masked(key: str) -> None:
    value = {"outer": {key: "plain", "other": "plain"}}
    assert mask_secrets(value) == ({"outer": {key: MASK, "other": "plain"}}, 1)
    assert may_hold_secret(json.dumps(value).encode()) or has_secret_key(value)


@pytest.mark.parametrize(
    "value",
    [
        {"tool": {"pin": "ab" * 32}, "max_tokens": 5, "key": "k1"},
        {"text": "task-list, risk_free, a:b@c"},
        {"password": None, "secret": True},
    ],
)
def test_what_is_no_secret_stays(value: Any) -> None:
    masked, count = mask_secrets(value)
    assert masked is value
    assert count == 0


@given(JSON)
def test_the_cheap_look_never_misses(value: Any) -> None:
    if mask_secrets(value)[1]:
        assert may_hold_secret(json.dumps(value).encode()) or has_secret_key(value)


@pytest.mark.parametrize(
    "text",
    [
        *("eyJ" * 80_000, "eyJaaaaaaaaa." * 18_000, "a://b:" * 40_000, "-----BEGIN PRIVATE KEY-----" * 9_000),
        *("sk-" * 80_000, "Bearer " * 35_000, "://" + "a" * 250_000, "-----BEGIN " * 22_000),
        ("eyJ" + "a" * 4097 + ".") * 60,
    ],
)
def test_no_text_makes_masking_slow(text: str) -> None:
    begun = time.process_time()
    mask_secrets(text)
    may_hold_secret(text.encode())
    assert time.process_time() - begun < 1


def test_an_escaped_slash_hides_no_password() -> None:
    assert may_hold_secret(rb'{"a": "https:\/\/user:hunter22@example.com"}')


def test_a_long_key_tells_by_its_end() -> None:
    assert mask_secrets({"x" * 500 + "password": "plain"})[1] == 1
