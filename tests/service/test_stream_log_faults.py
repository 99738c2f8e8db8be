"""`audit.durability = "stream"` while NATS is killed and paused: what was acknowledged is there, chains are whole."""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from audit_trails import DECIDED, decided, finished, new_id
from servers.nats import NatsServer
from stalls import Stalls
from stream_logs import StreamedRecords, stream_log

from fulcrum_adapters.jetstream import JetStreamLog
from fulcrum_mcp.core.audit import GENESIS, RecordDraft
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import SpoolPosition

pytestmark = [pytest.mark.service, pytest.mark.parts]


class Gateway:
    """Does with the log what the journal does: a tick that fails denies its calls and keeps what it owes."""

    def __init__(self, log: JetStreamLog, stalls: Stalls) -> None:
        self._log = log
        self._stalls = stalls
        self._owed: list[RecordDraft] = []
        self.admitted: list[str] = []
        self.denied: list[str] = []
        self.slowest = 0.0
        """Seconds of the longest attempt, without stalls."""
        self.stop = False

    def work(self) -> None:
        while not self.stop:
            calls = [new_id("call_") for _ in range(3)]
            begun = time.monotonic()
            try:
                self._log.append([*self._owed, *(decided(call) for call in calls)])
            except Unavailable:
                self.denied += calls
                time.sleep(0.01)
            else:
                self.admitted += calls
                self._owed = [finished(call) for call in calls]
            if (ended := time.monotonic()) - begun > self.slowest:
                self.slowest = max(self.slowest, self._stalls.own(begun, ended))
        while self._owed:
            try:
                self._log.append(self._owed)
                self._owed = []
            except Unavailable:
                time.sleep(0.05)


def faults_of(gateway: Gateway, records: list[dict[str, Any]]) -> list[str]:
    """Everything that is not as promised."""
    found: list[str] = []
    heads = [GENESIS, *(record["hash"] for record in records)]
    if [record["seq"] for record in records] != list(range(1, len(records) + 1)):
        found.append("the chain has a gap or a fork")
    if any(record["prev"] != head for record, head in zip(records, heads, strict=False)):
        found.append("the chain is not one")
    names = Counter(record["id"] for record in records)
    found += [f"record {name} is there {number} times" for name, number in names.items() if number > 1]
    admissions = {record["subject"] for record in records if record["type"] == DECIDED}
    ends = {record["subject"]: record["data"]["outcome"] for record in records if record["type"] != DECIDED}
    found += [f"{call} was admitted without a record" for call in gateway.admitted if call not in admissions]
    found += [f"{call} has no end" for call in admissions if call not in ends]
    denied = set(gateway.denied)
    found += [
        f"{call} was denied and ended {ends.get(call)}" for call in admissions & denied if ends[call] != "cancelled"
    ]
    return found


def longer_than(calls: list[str], number: int) -> bool:
    return len(calls) > number


def all_records(source: StreamedRecords) -> list[dict[str, Any]]:
    until(lambda: _read(source))
    return sorted({line: json.loads(line) for line in source.lines}.values(), key=lambda record: int(record["seq"]))


def _read(source: StreamedRecords) -> bool:
    try:
        source.read(source.writers()[0], SpoolPosition(0, 0))
    except Unavailable:
        return False
    return True


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def test_what_was_acknowledged_is_there_and_what_was_denied_is_ended(own_nats: NatsServer, tmp_path: Path) -> None:
    chance = random.Random(7)
    with stream_log(own_nats.url) as (log, source), Stalls(lambda: [os.getpid()], tmp_path) as stalls:
        gateway = Gateway(log, stalls)
        thread = threading.Thread(target=gateway.work)
        thread.start()
        for number in range(10):
            before = len(gateway.admitted)
            until(partial(longer_than, gateway.admitted, before + 20))
            if number % 2:
                own_nats.restart(kill=True)
            else:
                own_nats.pause()
                denied = len(gateway.denied)
                until(partial(longer_than, gateway.denied, denied))
                time.sleep(chance.uniform(0.0, 1.0))
                own_nats.resume()
        before = len(gateway.admitted)
        until(partial(longer_than, gateway.admitted, before + 20))
        gateway.stop = True
        thread.join(60)
        assert not thread.is_alive()
        until(lambda: not log.doubtful)
        log.append([])  # the last corrections
        records = all_records(source)
        assert faults_of(gateway, records) == []
        assert any(record["data"].get("outcome") == "cancelled" for record in records)
        assert gateway.slowest < 1.2
        planted = [record for record in records if record["subject"] != gateway.admitted[5]]
        assert len(faults_of(gateway, planted)) >= 2
