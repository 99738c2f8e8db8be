"""kill -9 of writers (and of the processor inside them) under load; a disk that fills up."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from audit_trails import FINISHED, finished, verdict

from fulcrum_mcp.composition.audit import open_keys, open_spool, open_trail, orphans
from fulcrum_mcp.control.audit import export_trail

pytestmark = pytest.mark.service

WRITER = Path(__file__).with_name("audit_writer.py")
TESTS = str(Path(__file__).parent.parent)


def start(data: Path, *, durability: str, batch: int, first: int, limit: int = 0) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(data), durability, str(batch), str(first), str(limit)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": TESTS},
    )


def read_some(process: "subprocess.Popen[str]", number: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(number)]


def kill_after(process: "subprocess.Popen[str]", acknowledged: int) -> list[str]:
    """Read so many acknowledgements, kill, read what is left."""
    assert process.stdout is not None
    lines = read_some(process, acknowledged)
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait(30)
    process.stdout.close()
    assert all(lines[:acknowledged]), "the writer died by itself"
    return [line.strip() for line in lines if line.endswith("\n")]


def finish_open_calls(data: Path) -> int:
    number = 0
    for spool in orphans(data):
        number += len(spool.open_calls)
        spool.append([finished(call.call, leg=call.leg, outcome="outcome_unknown") for call in spool.open_calls])
    return number


def export(data: Path) -> list[bytes]:
    with open_trail(data) as trail:
        assert trail.complete
        return list(export_trail(trail.reader, trail.signer, None, "2026-08-01T12:00:00Z"))


@pytest.mark.parametrize(("durability", "batch"), [("sync", 1), ("os", 30)])
def test_nothing_acknowledged_is_lost_when_writers_are_killed(tmp_path: Path, durability: str, batch: int) -> None:
    acknowledged: list[str] = []
    for turn in range(5):  # twice five kills with each mode: two writers share the folder
        writers = [
            start(tmp_path, durability=durability, batch=batch, first=10_000 * (2 * turn + which)) for which in range(2)
        ]
        for which, writer in enumerate(writers):
            acknowledged += kill_after(writer, 40 + 37 * turn + 11 * which)
        if turn % 2:
            finish_open_calls(tmp_path)
    finish_open_calls(tmp_path)
    assert finish_open_calls(tmp_path) == 0

    lines = export(tmp_path)
    assert verdict(lines, open_keys(tmp_path)) is None
    records = [json.loads(line) for line in lines if line.startswith(b'{"specversion"')]
    stored = Counter(f"{event['chain']} {event['seq']} {event['hash']}" for event in records)
    assert len(acknowledged) > 500
    assert [ack for ack in acknowledged if stored[ack] != 1] == []
    assert max(stored.values()) == 1
    assert len({event["chain"] for event in records}) <= 3, "writers that come and go must share their folders"
    ends = Counter(event["subject"] for event in records if event["type"] == FINISHED)
    forwarded = {event["subject"] for event in records if event["type"] != FINISHED}
    assert [call for call in forwarded if ends[call] != 1] == []


def test_a_full_disk_denies_and_keeps_what_it_had(tmp_path: Path) -> None:
    writer = start(tmp_path, durability="sync", batch=3, first=0, limit=150_000)
    out, _ = writer.communicate(timeout=60)
    *acknowledged, refusal = out.splitlines()
    assert refusal.startswith("refused the audit spool")
    assert "File too large" in refusal
    with open_spool(tmp_path) as spool:
        assert spool.append([finished("call_00000001")])[0].seq == len(acknowledged) + 1
    lines = export(tmp_path)
    assert verdict(lines, open_keys(tmp_path)) is None
    records = [json.loads(line) for line in lines if line.startswith(b'{"specversion"')]
    stored = [f"{event['chain']} {event['seq']} {event['hash']}" for event in records]
    assert stored[: len(acknowledged)] == acknowledged
    assert len(stored) == len(acknowledged) + 1


def test_processes_that_start_at_once_make_one_key_and_a_folder_each(tmp_path: Path) -> None:
    writers = [start(tmp_path, durability="os", batch=2, first=1000 * number) for number in range(4)]
    acknowledged = [ack.strip() for writer in writers for ack in read_some(writer, 20)]
    acknowledged += [ack for writer in writers for ack in kill_after(writer, 0)]
    lines = export(tmp_path)
    assert verdict(lines, open_keys(tmp_path)) is None
    chains = {ack.split()[0] for ack in acknowledged}
    assert len(chains) == 4
    assert sum(line.startswith(b'{"specversion"') for line in lines) >= len(acknowledged)
