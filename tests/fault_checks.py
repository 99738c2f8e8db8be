"""What must hold under a fault, whatever it is: the words of "When a part fails" as checks."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from fault_cells import Cell
from fault_site import Answer, Site
from governed_processes import until
from kill_checker import faults, planted_faults
from peers.marking_server import read_notes

__all__ = ["LIMITED", "LONG", "SECOND", "each", "ends_well", "goes_on", "refuses", "right_or_refused", "through"]

SECOND = 1.0
LIMITED = ("tight", "paced")
"""Tools that need the ledger."""
LONG = 80.0
"""Seconds of a long outage: longer than a known key counts, and than a reservation lives without being renewed."""
HEALED = 15.0
STORED = 90.0


async def each(site: Site, tools: Sequence[str], *, key: str = "") -> list[Answer]:
    """Every tool once on both replicas, one after the other."""
    return [await site.call(replica, tool, key=key) for replica in site.pair for tool in tools]


def goes_on(answers: Sequence[Answer], within: float = SECOND) -> None:
    """They are answered, and soon."""
    assert {answer.kind for answer in answers} == {"ok"}, answers
    assert max(answer.seconds for answer in answers) < within, answers


def refuses(answers: Sequence[Answer]) -> None:
    """They are denied within a second, with what a client needs to try again."""
    assert {answer.kind for answer in answers} == {"unavailable"}, answers
    assert max(answer.seconds for answer in answers) < SECOND, answers
    assert all(answer.retry_after is not None for answer in answers), answers


def right_or_refused(answers: Sequence[Answer]) -> None:
    """Answered or denied, nothing else."""
    refuses([Answer("unavailable", 0.0, "", 1), *(answer for answer in answers if answer.kind != "ok")])


async def stopped(site: Site) -> None:
    """What a kill switch stops stays stopped."""
    assert {answer.kind for answer in await each(site, ["halted"])} == {"stopped"}


async def hold_up(site: Site) -> list["asyncio.Task[Answer]"]:
    """Calls with a budget that the upstream has and has not answered: they end while the part fails."""
    before = len(read_notes(site.installation.notes))
    site.proxies["upstream"].latency(0.3)
    calls = [asyncio.create_task(site.call(replica, "tight")) for replica in site.pair]

    async def there() -> bool:
        return len(read_notes(site.installation.notes)) >= before + len(calls)

    await until(there, "the upstream has the calls", 5)
    site.proxies["upstream"].heal()
    return calls


async def through(
    site: Site, cell: Cell, during: Callable[[Site, Cell], Awaitable[None]], *, seconds: float = 0.0
) -> None:
    """One cell: harm for at least so long, look, heal, and hold everything against the trail and the ledger."""
    await site.know()
    on_their_way = await hold_up(site) if cell.part != "upstream" else []
    began = time.monotonic()
    await asyncio.to_thread(cell.harm, site)
    try:
        await during(site, cell)
        while time.monotonic() - began < seconds:
            await during(site, cell)
        await stopped(site)
        assert {(await call).kind for call in on_their_way} <= {"ok"}, "their answers wait for no part"
    except BaseException:
        await asyncio.to_thread(site.heal)
        with contextlib.suppress(AssertionError):  # so that the next cell begins with what works
            await site.serves(HEALED)
        raise
    await asyncio.to_thread(site.heal)
    harmed = time.monotonic() - began
    again = await site.serves(HEALED)
    evidence = await site.settled(STORED)
    assert evidence.spent["scarce"] == (2, 0, 2)
    assert await site.blind() == 0
    sys.stdout.write(
        f"\n{cell}: {harmed:.1f} s, right again after {again:.1f} s, all stored after "
        f"{time.monotonic() - began - harmed:.1f} s; slowest refusal {site.slowest:.2f} s\n"
    )


async def ends_well(site: Site) -> None:
    """After all cells of a part: the chains verify, and the checker finds every fault that is planted."""
    evidence = await site.settled(STORED)
    assert await asyncio.to_thread(site.verdict) is None
    assert len(evidence.answered) > 100
    for what, planted in planted_faults(evidence).items():
        assert faults(planted) != [], what
    if site.refused:
        await site.forward_past_the_gateway(site.refused[0])
        found = faults(await asyncio.to_thread(site.evidence))
        assert any("refused" in what for what in found), found
