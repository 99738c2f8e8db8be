"""The log in the stream when acknowledgements do not come: no record twice, no gap, nobody let through."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from audit_trails import DECIDED, calls, decided, finished, new_id
from servers.nats import NatsServer
from stalls import Stalls
from stream_logs import StreamedRecords, corrected, stream_log
from stream_rigs import SEAL, nats_config

from fulcrum_adapters.jetstream import JetStreamLog
from fulcrum_mcp.core.audit import GENESIS, RecordDraft
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports import DistantLog, SpoolPosition

pytestmark = [pytest.mark.service, pytest.mark.parts]


@pytest.fixture
def logged(own_nats: NatsServer) -> Iterator[tuple[JetStreamLog, StreamedRecords]]:
    with stream_log(own_nats.url) as pair:
        yield pair


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def answers(source: StreamedRecords) -> bool:
    try:
        source.read(source.writers()[0], SpoolPosition(0, 0))
    except Unavailable:
        return False
    return True


def records(source: StreamedRecords) -> list[dict[str, Any]]:
    until(lambda: answers(source))
    found = {line: json.loads(line) for line in source.lines}
    return sorted(found.values(), key=lambda record: int(record["seq"]))


def is_whole(found: list[dict[str, Any]]) -> bool:
    heads = [GENESIS, *(record["hash"] for record in found)]
    return [record["seq"] for record in found] == list(range(1, len(found) + 1)) and all(
        record["prev"] == head for record, head in zip(found, heads, strict=False)
    )


def refuses(log: JetStreamLog, drafts: list[RecordDraft]) -> Unavailable:
    with TemporaryDirectory() as folder, Stalls(lambda: [os.getpid()], Path(folder)) as stalls:
        begun = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            log.append(drafts)
        assert stalls.own(begun, time.monotonic()) < 1.5, str(caught.value)
    return caught.value


def test_a_server_that_does_not_answer_denies_in_time_and_what_arrived_is_corrected(
    own_nats: NatsServer, logged: tuple[JetStreamLog, StreamedRecords]
) -> None:
    log, source = logged
    log.append(calls(1))
    own_nats.pause()
    call, ended = new_id("call_"), finished(new_id("call_"))
    fault = refuses(log, [ended, decided(call), decided(new_id("call_"), effect="deny")])
    assert fault.doubtful
    assert log.heads() == {f"{log.writer}.default": 5}
    assert not refuses(log, calls(1)).doubtful
    own_nats.resume()
    until(lambda: not log.doubtful)
    again = log.append([ended, *calls(1)])  # the journal asks again for what it owes
    assert [ref.seq for ref in again] == [3, 7, 8]
    found = records(source)
    assert is_whole(found)
    assert len({str(record["id"]) for record in found}) == len(found) == 8
    ends = [record["data"] for record in found if record["subject"] == call and record["type"] != DECIDED]
    assert [end["outcome"] for end in ends] == ["cancelled"]


def test_a_server_that_is_gone_refuses_at_once_and_the_chain_goes_on_behind(
    own_nats: NatsServer, logged: tuple[JetStreamLog, StreamedRecords]
) -> None:
    log, source = logged
    log.append(calls(2))
    own_nats.kill()
    refuses(log, calls(1))
    for _ in range(3):
        refuses(log, calls(1))
    own_nats.start()
    log.ready(20)
    until(lambda: not log.doubtful)
    log.append(calls(2))
    found = records(source)
    assert is_whole(found)
    assert len(found) >= 8


def test_records_too_large_for_one_message_are_written(logged: tuple[JetStreamLog, StreamedRecords]) -> None:
    log, source = logged
    big = decided(new_id("call_"))
    drafts = [
        RecordDraft(big.id, big.tenant, big.type, big.subject, big.time, big.data, b'"' + b"x" * 4_000_000 + b'"'),
        finished(big.subject),
    ]
    log.append(drafts)
    assert is_whole(records(source))
    assert [len(text) for _, text in source.inputs] == [4_000_002]


@pytest.mark.parametrize("tenants", [1, 3, 20])
def test_what_is_begun_is_told_once_whether_it_is_there_or_in_doubt(
    own_nats: NatsServer, logged: tuple[JetStreamLog, StreamedRecords], tenants: int
) -> None:
    log, source = logged
    assert isinstance(log, DistantLog)

    def told() -> list[Exception | None]:
        block = log.prepare([draft for number in range(tenants) for draft in calls(1, tenant=f"t{number}")])
        found: list[Exception | None] = []
        log.begin(block, found.append)
        until(lambda: found != [])
        log.conclude(block, written=found[0] is None)
        return found

    assert told() == [None]
    own_nats.pause()
    (fault,) = told()
    assert isinstance(fault, Unavailable)
    assert fault.doubtful
    own_nats.resume()
    until(lambda: not log.doubtful)
    assert told() == [None]
    found = records(source)
    chains = {record["chain"] for record in found}
    assert len(chains) == tenants
    assert all(is_whole([record for record in found if record["chain"] == chain]) for chain in chains)


def test_a_stream_that_was_removed_refuses_and_is_made_anew(
    own_nats: NatsServer, logged: tuple[JetStreamLog, StreamedRecords]
) -> None:
    log, source = logged
    log.append(calls(1))
    records(source)
    own_nats.restart(empty=True)
    log.ready(20)

    def goes_on() -> bool:
        try:
            log.append(calls(1))
        except Unavailable:
            return False
        return True

    until(goes_on)
    assert is_whole(records(source))


def test_nothing_is_sent_while_it_is_barred_not_even_what_was_in_doubt(own_nats: NatsServer) -> None:
    why: list[str] = []
    log = JetStreamLog(nats_config(own_nats.url), SEAL, corrected, barred=lambda: why[-1] if why else None).ready()
    source = StreamedRecords(own_nats.url, log.writer)
    try:
        log.append(calls(1))
        own_nats.kill()
        drafts = calls(1)
        refuses(log, drafts)
        in_doubt = log.doubtful
        why.append("taken for dead")
        own_nats.start()
        log.ready(20)
        assert not refuses(log, drafts).doubtful
        assert len(records(source)) == 2
        assert log.doubtful == in_doubt
        why.clear()
        until(lambda: not log.doubtful)
        assert log.append(calls(1))[-1].seq == len(records(source))
    finally:
        log.close()
        source.close()
