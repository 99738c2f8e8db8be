"""One cell of the grid: a course, harmed at one step, and what is wrong with it afterwards."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servers.steps import StepProxy
from servers.valkey import ValkeyServer
from steps.checks import violations
from steps.course import Course
from steps.gateway import Gateway
from steps.harms import Place, Step, Trigger
from steps.upstream import AskedHttp

__all__ = ["Cell", "Outcome", "run"]


@dataclass(frozen=True)
class Cell:
    """None: a course without harm."""

    step: Step | None = None
    place: Place = "before"
    harm: str = ""

    def __str__(self) -> str:
        return "unharmed" if self.step is None else f"{self.harm} {self.place} {self.step}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell. `struck`: its step came."""

    cell: Cell
    steps: list[Step]
    struck: bool
    wrong: list[str]
    slowest: float
    healed_after: float
    seconds: float


async def run(
    folder: Path, server: ValkeyServer, cell: Cell, spoil: Callable[[Gateway], None] = lambda _: None
) -> Outcome:
    """On a server of its own, which is emptied first. `spoil` plants a fault into each of its gateways."""
    began = time.monotonic()
    await asyncio.to_thread(server.restart, empty=True)
    trigger = Trigger(server, cell.step, cell.place, cell.harm)
    with StepProxy(server.port, trigger) as proxy:
        course = Course(folder, server, proxy, trigger)
        course.spoil = spoil
        listening = await asyncio.get_running_loop().create_server(lambda: AskedHttp(course.asked), "127.0.0.1", 0)
        try:
            await course.run(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp")
        except Exception as fault:  # noqa: BLE001 - shown with the cell it happened in
            course.wrong.append(f"it broke off: {fault!r}")
        finally:
            listening.close()
        found = violations(course)
    slowest = max((answer.seconds for answer in course.answers if answer.tool != "slow"), default=0.0)
    return Outcome(
        cell,
        trigger.steps,
        trigger.struck_at is not None,
        found,
        slowest,
        course.healed_after,
        time.monotonic() - began,
    )
