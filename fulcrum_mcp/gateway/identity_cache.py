"""What is derived from an immutable object once and kept for as long as that very object is used again."""

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["IdentityCache"]

Key = TypeVar("Key")
Value = TypeVar("Value")


class IdentityCache(Generic[Key, Value]):
    """Keyed by identity, which costs less than hashing what an object holds. Keeps at most `size` keys alive."""

    __slots__ = ("_kept", "_make", "_size")

    def __init__(self, make: Callable[[Key], Value], size: int = 1024) -> None:
        self._make = make
        self._size = size
        self._kept: dict[int, tuple[Key, Value]] = {}

    def __call__(self, key: Key) -> Value:
        """The value of `key`, made at its first use."""
        known = self._kept.get(id(key))
        if known is not None and known[0] is key:
            return known[1]
        value = self._make(key)
        if len(self._kept) >= self._size:
            self._kept.clear()
        self._kept[id(key)] = (key, value)
        return value
