"""The cyclic garbage collector of a process that has been put together and now only works."""

import gc

__all__ = ["calm_collector"]


def calm_collector(young: int) -> None:
    """What was built at the start stays and is not looked at again; the rest once so many objects are new."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 50, 100)
