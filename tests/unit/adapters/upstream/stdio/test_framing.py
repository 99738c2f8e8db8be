import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.upstream.stdio.framing import LineBuffer, LineTooLong, frame

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.booleans(), st.booleans())
def test_framed_message_is_one_line_to_every_reader_and_the_same_value(
    value: object, ascii_only: bool, wide: bool
) -> None:
    try:
        message = json.dumps(value, ensure_ascii=ascii_only, indent=2 if wide else None).encode()
    except UnicodeEncodeError:
        message = json.dumps(value).encode()
    line = frame(message)
    assert len(line.decode().splitlines()) == 1
    assert line.endswith(b"\n")
    assert json.loads(line) == value


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029"])
def test_call_hidden_behind_a_unicode_line_separator_stays_inside_its_string(separator: str) -> None:
    hidden = f'x{separator}{{"method":"tools/call"}}{separator}'
    line = frame(json.dumps({"a": hidden}, ensure_ascii=False).encode())
    assert separator.encode() not in line
    assert json.loads(line) == {"a": hidden}


def test_carriage_return_between_tokens_becomes_a_space() -> None:
    assert frame(b'{"a":1,\r\n\r"b":2}') == b'{"a":1,   "b":2}\n'


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=8), st.data())
def test_lines_are_the_same_however_they_are_cut_into_chunks(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines) + b"rest"
    buffer = LineBuffer(1000)
    found: list[bytes] = []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, 9))
        found += buffer.feed(whole[at : at + size])
        at += size
    assert found == lines
    assert buffer.flush() == b"rest"


def test_line_at_the_limit_passes_and_one_beyond_is_refused() -> None:
    buffer = LineBuffer(10)
    assert buffer.feed(b"0123456789\n") == [b"0123456789"]
    with pytest.raises(LineTooLong):
        buffer.feed(b"01234567890\n")


def test_unfinished_line_beyond_the_limit_is_refused_without_its_end() -> None:
    buffer = LineBuffer(10)
    buffer.feed(b"012345")
    with pytest.raises(LineTooLong):
        buffer.feed(b"678901")
