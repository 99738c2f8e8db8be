"""`traceparent` as W3C Trace Context defines it (section 3.2)."""

import pytest

from fulcrum_mcp.gateway.trace import Trace, parse_traceparent

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{ID}-{SPAN}-01", (ID, SPAN, True)),
        (f"00-{ID}-{SPAN}-00", (ID, SPAN, False)),
        (f" 00-{ID}-{SPAN}-03 ", (ID, SPAN, True)),
        (f"cc-{ID}-{SPAN}-01-what-the-future-brings", (ID, SPAN, True)),
        (f"00-{ID}-{SPAN}-01-more", None),
        (f"ff-{ID}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{ID}-{'0' * 16}-01", None),
        (f"00-{ID.upper()}-{SPAN}-01", None),
        (f"00-{ID}-{SPAN}", None),
        ("", None),
    ],
)
def test_values_are_read_as_the_standard_says(text: str, found: object) -> None:
    assert parse_traceparent(text) == found


def test_what_the_upstream_is_told_can_be_read_again() -> None:
    trace = Trace(ID, SPAN, "1" * 16, sampled=True)
    assert parse_traceparent(trace.traceparent) == (ID, SPAN, True)
