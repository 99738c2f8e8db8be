"""What a busy machine takes from a process is told from what the process takes itself."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stalls import Stalls

pytestmark = [pytest.mark.service, pytest.mark.anyio]

_BUSY = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(flush=True)\nwhile True: pass"
_ASLEEP = "import time; print(flush=True); time.sleep(1)"
SOME = 0.5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, program: str) -> "subprocess.Popen[bytes]":
    process = stack.enter_context(subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE))
    stack.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_who_shares_one_processor_is_excused_for_what_the_other_took(running: ExitStack, tmp_path: Path) -> None:
    pid, _ = (start(running, _BUSY).pid for _ in range(2))
    with Stalls(lambda: [pid], tmp_path) as stalls:
        began = time.monotonic()
        until = began + 30
        while (found := stalls.between(began, time.monotonic())) < SOME:
            assert time.monotonic() < until, f"{found:.2f} s in 30 s"
            time.sleep(0.05)
        assert stalls.between(began, began) <= found


def test_who_sleeps_is_not_excused(running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    process = start(running, _ASLEEP)
    with Stalls(lambda: [process.pid], tmp_path) as stalls:
        began = time.monotonic()
        process.wait(30)
        assert stalls.own(began, time.monotonic()) > SOME


async def test_what_does_not_come_to_pass_in_time_says_so(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    with Stalls(list, tmp_path) as stalls, pytest.raises(AssertionError, match=r"not within 0\.2 s.* stalls: it comes"):
        await stalls.until(never, "it comes", 0.2)


def test_a_disk_that_stalls_is_an_excuse_also_while_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: int) -> None:
        time.sleep(SOME)

    monkeypatch.setattr(os, "fdatasync", slow)
    with Stalls(list, tmp_path) as stalls:
        began = time.monotonic()
        until = began + 30
        while not 0.1 < stalls.between(began, time.monotonic()) < SOME - 0.1:
            assert time.monotonic() < until, "it is told before it has ended"
            time.sleep(0.01)
