"""The audit log in a stream, read back as a spool is: for the suite over every AuditLog."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from audit_trails import finished
from stream_rigs import SEAL, nats_config

from fulcrum_adapters.jetstream import Connection, JetStreamAuditFeed, JetStreamLog
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.frames import INPUTS, RECORD, split
from fulcrum_mcp.ports import Delivery, OpenCall, SpoolChunk, SpoolPosition

__all__ = ["StreamedRecords", "corrected", "stream_log"]


def corrected(call: OpenCall) -> RecordDraft:
    return finished(call.call, leg=call.leg, outcome="cancelled", tenant=call.tenant)


def _time(line: bytes) -> str:
    return str(json.loads(line)["time"])


class StreamedRecords:
    """A `SpoolSource` over what one writer has put into the stream."""

    def __init__(self, url: str, writer: str) -> None:
        self._writer = writer
        self._runner = asyncio.Runner()
        self._feed = self._runner.run(self._begin(url))
        self.lines: list[bytes] = []
        self.inputs: list[tuple[str, bytes]] = []

    async def _begin(self, url: str) -> JetStreamAuditFeed:
        connection = Connection(nats_config(url))
        feed = JetStreamAuditFeed(connection, SEAL)
        connection.start()
        await connection.ready()
        await feed.prepare()
        return feed

    async def _take(self) -> None:
        found: Sequence[Delivery] = ()
        known = len(self.lines)
        while found := await self._feed.fetch(64, 0.1):
            for delivery in found:
                assert delivery.fault is None
                frames, end, bad = split(delivery.body)
                assert (end, bad) == (len(delivery.body), False)
                self.lines += [payload for kind, payload in frames if kind == RECORD]
                for payload in (payload for kind, payload in frames if kind == INPUTS):
                    name, _, text = payload.partition(b"\n")
                    self.inputs.append((name.decode(), text))
                await delivery.ack()
        self.lines[known:] = sorted(self.lines[known:], key=_time)  # chains arrive apart, a spool holds them together

    def writers(self) -> Sequence[str]:
        return [self._writer]

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        self._runner.run(self._take())
        taken, inputs = position
        end = SpoolPosition(len(self.lines), len(self.inputs))
        if writer != self._writer or position >= end:
            return None
        return SpoolChunk(self.lines[taken:], self.inputs[inputs:], [], end, [])

    def release(self, writer: str, position: SpoolPosition) -> None:
        pass

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        raise AssertionError(f"{writer} {position}: {why}")

    def close(self) -> None:
        self._runner.run(self._feed.close())
        self._runner.close()


@contextmanager
def stream_log(url: str) -> Iterator[tuple[JetStreamLog, StreamedRecords]]:
    log = JetStreamLog(nats_config(url), SEAL, corrected).ready()
    source = StreamedRecords(url, log.writer)
    try:
        yield log, source
    finally:
        log.close()
        source.close()
