"""Many cells, a few at a time, each on a server of its own; and which of them make a sample of all."""

import asyncio
import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from servers.valkey import ValkeyServer
from steps.cell import Cell, Outcome, run
from steps.harms import HARMS, PLACES, Place, Step

__all__ = ["every", "run_all", "sample"]

THREADS: Final = 64
"""As if every gateway had a process of its own."""
NEWS: Final = 30.0
"""Seconds between two lines that say how far it has come."""


def every(steps: Sequence[Step], harm: str) -> list[Cell]:
    """Each message, in both places."""
    return [Cell(step, place, harm) for step in steps for place in PLACES]


def sample(steps: Sequence[Step]) -> list[Cell]:
    """Every kind of message and every harm, in each place, at least once."""
    kinds: dict[str, list[Step]] = {}
    for step in steps:
        kinds.setdefault(step.kind, []).append(step)
    harms = itertools.cycle(HARMS)
    places = itertools.cycle(PLACES)
    cells = [Cell(found[len(found) // 2], next(places), next(harms)) for found in kinds.values()]
    met = {(cell.place, cell.harm) for cell in cells}
    rest: list[tuple[Place, str]] = [(place, harm) for place in PLACES for harm in HARMS if (place, harm) not in met]
    reserves = itertools.cycle(kinds["reserve"])
    return cells + [Cell(next(reserves), place, harm) for place, harm in rest]


async def run_all(folder: Path, cells: Iterable[Cell], lanes: int, say: Callable[[str], None]) -> list[Outcome]:
    """In any order. `say` is told at once what is wrong, and now and then how far it has come."""
    waiting = list(enumerate(cells))[::-1]
    wanted, began, said = len(waiting), time.monotonic(), time.monotonic()
    outcomes: list[Outcome] = []

    def news() -> None:
        nonlocal said
        if time.monotonic() < said + NEWS:
            return
        said = time.monotonic()
        wrong = sum(bool(outcome.wrong) for outcome in outcomes)
        say(f"{len(outcomes)} of {wanted} cells, {wrong} with violations, after {said - began:.0f} s")

    async def lane(server: ValkeyServer) -> None:
        while waiting:
            number, cell = waiting.pop()
            place = folder / f"cell{number}"
            outcomes.append(await run(place, server, cell))
            if outcomes[-1].wrong:
                say(f"{cell}: {outcomes[-1].wrong}")
            await asyncio.to_thread(shutil.rmtree, place)
            news()

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    with ExitStack() as stack:
        servers = [stack.enter_context(ValkeyServer(folder / f"valkey{number}")) for number in range(lanes)]
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(lane(server))
    return outcomes
