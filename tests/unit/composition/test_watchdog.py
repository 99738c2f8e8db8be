"""The watchdog in a process of its own: what ends it, and what does not."""

import signal
import subprocess
import sys
import time

import pytest

BUSY = """
import sys, threading, time, zlib
from fulcrum_mcp.composition import watchdog
{before}
dog = watchdog.Watchdog(1.0, sys.stderr.fileno())
dog.start()
secret = "correct-horse"
{body}
print("alive")
"""
LOCKED = "def never_ends(secret):\n    while True: pass\nnever_ends(secret)"
BEATS = """
end = time.monotonic() + 1.6
while time.monotonic() < end:
    until = time.process_time() + 0.2
    while time.process_time() < until: pass
    dog.beat()
"""
BESIDE = """
data = b"x" * 50_000_000
def work():
    while time.thread_time() < 0.8: zlib.compress(data, 1)  # without the GIL
threads = [threading.Thread(target=work) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert time.process_time() > 1.2
"""
WITHOUT = "watchdog._ThreadTimer.of_this_thread = classmethod(lambda cls: None)"


def run(body: str, before: str = "") -> subprocess.CompletedProcess[str]:
    script = BUSY.format(body=body, before=before)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("before", ["", WITHOUT], ids=["thread", "process"])
def test_loop_without_a_beat_is_ended_and_its_place_is_told_without_a_value(before: str) -> None:
    done = run(LOCKED, before)
    assert done.returncode == -signal.SIGPROF
    assert "in never_ends" in done.stderr
    assert "correct-horse" not in done.stderr
    assert "alive" not in done.stdout


@pytest.mark.parametrize("before", ["", WITHOUT], ids=["thread", "process"])
@pytest.mark.parametrize(
    "body",
    ["time.sleep(1.5)", BEATS, "dog.stop()\nBUSY = time.process_time() + 1.3\nwhile time.process_time() < BUSY: pass"],
)
def test_waiting_beating_and_stopping_are_no_reason(body: str, before: str) -> None:
    done = run(body, before)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the time of all threads counts together")
def test_work_of_other_threads_does_not_count() -> None:
    done = run(BESIDE)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_stopped_process_is_left_alone() -> None:
    script = BUSY.format(body="print('up', flush=True)\nsys.stdin.readline()\ndog.beat()", before="")
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "alive\n")
