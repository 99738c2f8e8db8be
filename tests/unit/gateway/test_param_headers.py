"""The SDK's `mcp.shared.inbound` is the oracle: what it refuses we refuse. Where we are stricter a test says so."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import (
    decode_header_value,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)

from fulcrum_mcp.gateway.param_headers import (
    decode_header,
    encode_header,
    param_headers_of,
    param_mismatch,
)

_NAMES = st.sampled_from(["a", "b", "c"])
_TOKENS = st.sampled_from(["Region", "region", "Zone", "X-1", "", "a b", "a:b", "é", 5, None, ["x"]])
_TYPES = st.sampled_from(["string", "integer", "boolean", "number", "object", None, ["string"]])


@st.composite
def _annotated(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": draw(_TYPES)}
    if draw(st.booleans()):
        schema["x-mcp-header"] = draw(_TOKENS)
    return schema


_SCHEMAS = st.recursive(
    _annotated() | st.booleans() | st.none() | st.text(max_size=3),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": _TYPES,
            "properties": st.dictionaries(_NAMES, inner, max_size=3),
            "items": inner,
            "allOf": st.lists(inner, max_size=2),
            "$defs": st.dictionaries(_NAMES, inner, max_size=2),
            "additionalProperties": inner,
            "default": inner,
            "enum": st.lists(inner, max_size=2),
            "x-mcp-header": _TOKENS,
        },
    ),
    max_leaves=6,
)
_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.sampled_from([2**53 + 1, 2**70, 10**5000, 1.0, 1.5, -0.0, 1e20, [], {}])
    | st.text(max_size=4)
)
_HEADER_VALUES = (
    st.sampled_from(
        [
            "",
            "1",
            "1.0",
            "1.",
            "1.50",
            "01",
            "-0",
            "+1",
            "1e0",
            "true",
            "True",
            "\uff11",
            "=?base64?4Lit?=",
            "=?base64?",
        ]
    )
    | st.sampled_from(["=?base64?YQ==?=", "=?base64?YR==?=", "=?base64?77yR?=", "=?base64??=", "=?BASE64?YQ==?="])
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=5)
)


@given(_SCHEMAS)
@settings(max_examples=300)
def test_declarations_are_read_as_the_sdk_reads_them(schema: Any) -> None:
    found = param_headers_of(schema)
    if find_invalid_x_mcp_header(schema) is not None:
        assert found == ()
        return
    expected = {path: f"mcp-param-{token.lower()}" for path, token in x_mcp_header_map(schema).items()}
    assert {item.path: item.header for item in found} == expected


@pytest.mark.parametrize("schema", [None, [], "x", 5, {}, {"properties": []}, {"allOf": {}}, {"$defs": [1]}])
def test_what_is_no_schema_declares_nothing(schema: Any) -> None:
    assert param_headers_of(schema) == ()


def test_deep_schema_is_walked_without_recursion() -> None:
    schema: dict[str, Any] = {"type": "string", "x-mcp-header": "Deep"}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    assert len(param_headers_of(schema)[0].path) == 5000


_SCHEMA = {
    "properties": {
        "a": {"type": "integer", "x-mcp-header": "A"},
        "b": {"type": "string", "x-mcp-header": "B"},
        "c": {"properties": {"a": {"type": "boolean", "x-mcp-header": "C"}}},
    }
}
_DECLARED = param_headers_of(_SCHEMA)


@given(
    st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=2), max_size=3),
    st.dictionaries(st.sampled_from(["mcp-param-a", "mcp-param-b", "mcp-param-c"]), _HEADER_VALUES, max_size=3),
)
@settings(max_examples=500)
@example({"a": 1}, {"mcp-param-a": "1."})
@example({"a": 1}, {"mcp-param-a": "=?base64?77yR?="})
@example({"a": 1.0}, {"mcp-param-a": "1"})
@example({"a": 1.5}, {"mcp-param-a": "1.5"})
def test_headers_are_held_to_the_arguments_as_the_sdk_holds_them(
    arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    ours = param_mismatch(_DECLARED, arguments, {name: [value] for name, value in headers.items()})
    theirs = validate_mcp_param_headers(_SCHEMA, arguments, headers)
    assert (ours is None) == (theirs is None), (ours, theirs)


@given(st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=2), max_size=3))
def test_headers_of_the_sdks_client_are_taken(arguments: dict[str, Any]) -> None:
    sent = mcp_param_headers(x_mcp_header_map(_SCHEMA), arguments)
    assert param_mismatch(_DECLARED, arguments, {name.lower(): [value] for name, value in sent.items()}) is None


def test_header_that_comes_twice_is_a_lie_even_if_both_say_the_same() -> None:
    told = param_mismatch(_DECLARED, {"a": 1}, {"mcp-param-a": ["1", "1"]})
    assert told is not None
    assert "more than once" in told


def test_header_of_an_undeclared_parameter_is_no_business_of_ours() -> None:
    assert param_mismatch(_DECLARED, {}, {"mcp-param-other": ["x"]}) is None


@given(st.text(st.characters(exclude_categories=["Cs"])) | _HEADER_VALUES)
def test_text_survives_a_header_in_both_directions(value: str) -> None:
    assert decode_header(encode_header(value)) == value
    assert decode_header_value(encode_header(value)) == value
    assert decode_header(encode_header_value(value)) == value
    assert encode_header(value).isascii()


@given(_HEADER_VALUES | st.binary(max_size=6).map(lambda raw: f"=?base64?{raw.decode('latin-1')}?="))
def test_sentinels_are_decoded_as_the_sdk_decodes_them(value: str) -> None:
    if not value.startswith("=?") or (
        value.isascii() and "\n" not in value
    ):  # the SDK raises at others; no header holds a line break
        assert decode_header(value) == decode_header_value(value)
    else:
        assert decode_header(value) is None


@pytest.mark.parametrize(
    "value", ["=?base64?YR==?=", "=?base64?YQ?=", "=?base64?*?=", "=?base64?/w==?=", "=?base64?YQ==\n?="]
)
def test_malformed_sentinel_equals_nothing(value: str) -> None:
    assert decode_header(value) is None
