"""A supervisor over workers that serve nothing and do as they are told; notes `<number> <pid> <what>` a line.

python fake_worker.py supervise HOW WORKERS FOLDER
python fake_worker.py work HOW FOLDER
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from fulcrum_mcp import logs
from fulcrum_mcp.composition.supervisor import supervise
from fulcrum_mcp.composition.worker import Worker, inherited
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.settings import Settings
from fulcrum_mcp.settings.model import Bind


def note(folder: Path, number: int, what: str) -> None:
    with (folder / "notes").open("a") as notes:
        notes.write(f"{number} {os.getpid()} {what}\n")


def first(folder: Path, number: int) -> bool:
    """True once for each number."""
    seen = folder / f"seen{number}"
    known = seen.exists()
    seen.touch()
    return not known


def crowd_out() -> None:
    """A little work for long, as on a machine that has too much to do."""
    for _ in range(10):
        until = time.thread_time() + 0.06
        while time.thread_time() < until:
            pass
        time.sleep(0.4)


async def work(how: str, folder: Path, worker: Worker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await worker.attend(1.0, stop.set)
    number = worker.seat.number
    worker.say("open")
    if how == "second never" and number == 2:
        os._exit(1)
    worker.say("ready")
    note(folder, number, "again" if worker.again else "ready")
    if first(folder, number):
        if how == "silent":
            time.sleep(60)  # noqa: ASYNC251 - this is what is tested
        if how == "crowded out":
            crowd_out()
            note(folder, number, "went on")
        if how == "busy":
            while True:
                pass
        if how == "dies once":
            await asyncio.sleep(0.1)
            os._exit(7)

    async def greet() -> None:
        await worker.greeting()
        note(folder, number, f"greeted {worker.siblings}")

    greeted = loop.create_task(greet())
    await stop.wait()
    greeted.cancel()
    note(folder, number, "ended")
    await worker.leave()


def main() -> None:
    how, folder = sys.argv[2], Path(sys.argv[-1])
    if sys.argv[1] == "supervise":
        logs.configure("info", json=True)
        settings = Settings(data=folder / "data", http=Bind(host="127.0.0.1", port=0), watchdog_seconds=1.0)
        command = [sys.executable, __file__, "work", how, str(folder)]
        try:
            sys.exit(supervise(command, int(sys.argv[3]), settings))
        except Unavailable as fault:
            sys.stderr.write(f"{fault}\n")
            sys.exit(3)
    worker = inherited(os.environ)
    assert worker is not None
    assert "FULCRUM_WORKER" not in os.environ
    if how == "refuses":
        sys.exit(2)
    if how == "dies":
        note(folder, worker.seat.number, "dies")
        sys.exit(1)
    asyncio.run(work(how, folder, worker))


if __name__ == "__main__":
    main()
