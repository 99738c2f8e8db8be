"""The counter that tells a snapshot that something has changed."""

__all__ = ["MemoryRevision"]


class MemoryRevision:
    """Shared by the repositories whose changes count as one."""

    def __init__(self) -> None:
        self.value = 1

    def move(self) -> None:
        """Say that something has changed."""
        self.value += 1
