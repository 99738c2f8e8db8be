"""History in memory: for tests and dry runs, one process, one thread."""

import time
from collections.abc import Callable, Sequence

from fulcrum_mcp.ports import HistoryView

__all__ = ["MemoryHistory"]

SECOND = 1_000_000_000


class MemoryHistory:
    """`History` in dictionaries. A key's past counts for `key_window` seconds, an envelope's for good."""

    def __init__(self, *, key_window: int = 3_600, clock: Callable[[], int] = time.time_ns) -> None:
        self._window = key_window * SECOND
        self._clock = clock
        self._taints: dict[tuple[str, str], dict[str, int]] = {}
        self._calls: dict[tuple[str, str], list[tuple[str, int]]] = {}

    def read(self, tenant: str, subject: str) -> HistoryView:
        """Everything about one subject."""
        since = self._clock() - self._window if subject.startswith("key:") else 0
        taints = self._taints.get((tenant, subject), {})
        calls: dict[str, int] = {}
        for tool, at in self._calls.get((tenant, subject), ()):
            if at > since:
                calls[tool] = calls.get(tool, 0) + 1
        return HistoryView(tuple(sorted(label for label, at in taints.items() if at > since)), calls)

    def count(self, tenant: str, subject: str, tool: str, at: int) -> None:
        """Count one admitted call."""
        self._calls.setdefault((tenant, subject), []).append((tool, at))

    def taint(self, tenant: str, subject: str, labels: Sequence[str], at: int) -> None:
        """Add labels."""
        taints = self._taints.setdefault((tenant, subject), {})
        for label in labels:
            taints[label] = max(at, taints.get(label, 0))
