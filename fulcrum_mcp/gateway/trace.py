"""A call's place in a trace, as W3C Trace Context writes it."""

import re
from typing import Final, NamedTuple

__all__ = ["Trace", "parse_traceparent"]

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class Trace(NamedTuple):
    """A governed call's place in a trace."""

    trace: str
    span: str
    parent: str | None
    sampled: bool

    @property
    def traceparent(self) -> str:
        """What the upstream is told: this call's span is the parent."""
        return f"00-{self.trace}-{self.span}-{'01' if self.sampled else '00'}"


def parse_traceparent(text: str) -> tuple[str, str, bool] | None:
    """(trace id, parent's span id, sampled) of a version-00 or later value; None if it is none (W3C, section 3.2)."""
    found = _FORM.fullmatch(text.strip())
    if found is None or (text.startswith("00-") and found[4]):
        return None
    return found[1], found[2], bool(int(found[3], 16) & _SAMPLED)
