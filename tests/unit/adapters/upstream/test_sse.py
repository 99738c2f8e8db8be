import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.upstream.fault import Fault
from fulcrum_adapters.upstream.sse import EventParser
from fulcrum_mcp.ports import ServerSentEvent as Event

CASES = {
    "one event": (b"data: {}\n\n", [Event(b"{}")]),
    "no space after the colon": (b"data:{}\n\n", [Event(b"{}")]),
    "only one space is cut": (b"data:  {}\n\n", [Event(b" {}")]),
    "several data lines": (b"data: a\ndata\ndata: b\n\n", [Event(b"a\n\nb")]),
    "CR": (b"id: 1\rdata: a\r\rdata: b\r\r", [Event(b"a", id="1"), Event(b"b")]),
    "CRLF": (b"id: 1\r\ndata: a\r\n\r\n", [Event(b"a", id="1")]),
    "mixed line ends": (b"data: a\r\ndata: b\rdata: c\n\r\n", [Event(b"a\nb\nc")]),
    "BOM": (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
    "BOM only at the start": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event(b"a")]),
    "priming event": (b"id: 7\nretry: 3000\ndata: \n\n", [Event(b"", id="7", retry=3000)]),
    "id and retry without data": (b"id: 7\n\nretry: 10\n\n", [Event(b"", id="7"), Event(b"", retry=10)]),
    "event without data": (b"event: ping\n\ndata: a\n\n", [Event(b"a")]),
    "type": (b"event: message\ndata: a\n\n", [Event(b"a", event="message")]),
    "id with NUL": (b"id: a\0b\ndata: x\n\n", [Event(b"x")]),
    "empty id": (b"id\ndata: x\n\n", [Event(b"x", id="")]),
    "retry that is no number": (b"retry: 1e3\nretry: -1\nretry: \xd9\xa1\ndata: x\n\n", [Event(b"x")]),
    "comment": (b": ping - 1\n\n:\n", [Event(b"ping - 1", comment=True), Event(b"", comment=True)]),
    "comment within": (b"data: a\n:c\ndata: b\n\n", [Event(b"c", comment=True), Event(b"a\nb")]),
    "unknown field": (b"foo: a\nDATA: b\ndata : c\ndata: x\n\n", [Event(b"x")]),
    "colon in value": (b"data: a: b\n\n", [Event(b"a: b")]),
    "UTF-8": ("data: ä€😀\n\n".encode(), [Event("ä€😀".encode())]),
    "unicode line ends are data": ("data: a\u2028b\x0bc\x85\n\n".encode(), [Event("a\u2028b\x0bc\x85".encode())]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n", [Event(b"a")]),
}


def parse(*chunks: bytes) -> list[Event]:
    parser = EventParser(1 << 20)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize("case", CASES)
def test_stream_is_read_as_the_standard_says_wherever_it_is_cut(case: str) -> None:
    raw, expected = CASES[case]
    assert parse(raw) == expected
    assert parse(*(raw[n : n + 1] for n in range(len(raw)))) == expected
    for cut in range(len(raw)):
        assert parse(raw[:cut], raw[cut:]) == expected


FRAGMENTS = [
    b"data",
    b":",
    b" ",
    b"a",
    b"\r",
    b"\n",
    b"\r\n",
    b"id: 1",
    b"retry: 5",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xf0\x9f",
    b"",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_cuts_never_change_what_is_read(chunks: list[bytes]) -> None:
    assert parse(*chunks) == parse(b"".join(chunks))


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line), min_size=1))
def test_data_comes_back_as_it_was_written(lines: list[bytes]) -> None:
    raw = b"".join(b"data: " + line + b"\r\n" for line in lines) + b"\r\n"
    assert parse(raw) == [Event(b"\n".join(lines))]


@pytest.mark.parametrize("raw", [b"data: a\n", b"data: a", b"data", b"\xef\xbb\xbfdata: a"])
def test_end_within_an_event_is_a_fault(raw: bytes) -> None:
    parser = EventParser(100)
    parser.feed(raw)
    with pytest.raises(Fault, match="within an event"):
        parser.end()


@pytest.mark.parametrize("raw", [b"", b"data: a\n\n", b"data: a\n\n: bye", b"\n"])
def test_end_between_events_is_no_fault(raw: bytes) -> None:
    parser = EventParser(100)
    parser.feed(raw)
    parser.end()


@pytest.mark.parametrize("line", [b"data: aaaaaaaa\n", b"x: aaaaaaaa\n", b"aaaaaaaaa"])
def test_event_that_never_ends_is_a_fault_at_the_limit(line: bytes) -> None:
    parser = EventParser(1000)
    fed = 0
    with pytest.raises(Fault, match="larger than 1000 bytes"):  # noqa: PT012 - the size at the fault matters
        while fed < 2000:
            fed += len(line)
            parser.feed(line)
    assert fed <= 1000 + len(line)


@pytest.mark.parametrize("event", [b"data: aaaaaaaa\n\n", b": ping\n", b": ping\n\n", b"id: 1\n\n"])
def test_endless_small_events_stay_below_the_limit(event: bytes) -> None:
    parser = EventParser(100)
    for _ in range(1000):
        parser.feed(event)
