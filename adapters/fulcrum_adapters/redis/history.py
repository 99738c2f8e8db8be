"""What policies ask about the past, beside the ledger's books and as believed as they are."""

import time
from collections.abc import Callable, Sequence

from fulcrum_adapters.redis.naming import joined, microseconds, plain
from fulcrum_adapters.redis.store import RedisStore
from fulcrum_adapters.redis.subjects import ENVELOPE_KEPT, WHOLE, is_key, life_of_key, slice_of
from fulcrum_mcp.ports import HistoryView

__all__ = ["RedisHistory"]


class RedisHistory:
    """`History` on a `RedisStore`; called on threads.

    A key's past counts for `key_window` seconds (its calls are counted in slices of a sixtieth of it, so one may count
    a slice longer, never shorter). An envelope's counts until nothing has touched it for 90 days.
    """

    def __init__(self, store: RedisStore, *, key_window: int = 3_600, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._window = key_window
        self._clock = clock

    def read(self, tenant: str, subject: str) -> HistoryView:
        """Everything about one subject, as of now, in one round trip."""
        since = microseconds(self._clock()) - self._window * 1_000_000 if is_key(subject) else -1
        ((_, taints, counted),) = self._store.read([[8, joined(tenant, subject), since]])
        return HistoryView(tuple(sorted(taints)), dict(zip(counted[::2], counted[1::2], strict=True)))

    def count(self, tenant: str, subject: str, tool: str, at: int) -> None:
        """Count one admitted call."""
        part = slice_of(at, self._window) if is_key(subject) else WHOLE
        self._store.write([[6, joined(tenant, subject), plain(tool), microseconds(at), part, self._life(subject)]], at)

    def taint(self, tenant: str, subject: str, labels: Sequence[str], at: int) -> None:
        """Add labels; they are with the server when it returns."""
        if labels:
            named = [plain(label) for label in labels]
            self._store.write([[7, joined(tenant, subject), named, microseconds(at), self._life(subject)]], at)

    def _life(self, subject: str) -> int:
        return life_of_key(self._window) if is_key(subject) else ENVELOPE_KEPT
