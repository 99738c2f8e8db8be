"""The load generator: a closed loop over N keep-alive connections; cheap, and it checks every answer."""

import argparse
import asyncio
import dataclasses
import json
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.processes import python, started
from bench.wire import head, message

__all__ = ["Report", "Target", "apart", "main", "run"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where to, and with which headers; `tool` as the gateway names it."""

    url: str
    headers: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    tool: str = "echo"


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What one run saw. Latencies in milliseconds; `wrong` counts answers without their own mark or with an error."""

    calls: int
    wrong: int
    seconds: float
    p50: float
    p99: float
    first_wrong: str = ""
    stages: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    p10: float = 0.0


class _Run:
    """What the connections of one run share."""

    def __init__(self, target: Target, calls: int | None, seconds: float) -> None:
        parts = urlsplit(target.url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.head = head(f"{self.host}:{self.port}", parts.path, target.headers, target.tool)
        self.tool = target.tool
        self.calls = calls
        self.deadline = time.perf_counter() + seconds
        self.prefix = secrets.token_hex(8)
        self.number = 0
        self.latencies: list[float] = []
        self.wrong = 0
        self.first_wrong = ""
        self.timings: list[bytes] = []

    def next(self) -> tuple[str, bytes] | None:
        if time.perf_counter() >= self.deadline or (self.calls is not None and self.number >= self.calls):
            return None
        self.number += 1
        mark = f"{self.prefix}{self.number:016d}"
        body = message(self.number, mark, self.tool)
        return mark, b"%b%d\r\n\r\n%b" % (self.head, len(body), body)


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._parser: Any = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._mark = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        call = self._run.next()
        if call is None:
            self._transport.close()
            return
        self._mark = call[0].encode()
        self._body.clear()
        self._began = time.perf_counter()
        self._transport.write(call[1])

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 13 and name.lower() == b"server-timing" and self._run.number % 16 == 0:
            self._run.timings.append(value)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        run = self._run
        run.latencies.append(time.perf_counter() - self._began)
        body = b"".join(self._body)
        if status != 200 or self._mark not in body or b'"isError":true' in body:
            run.wrong += 1
            run.first_wrong = run.first_wrong or f"{status} {body[:300].decode(errors='replace')}"
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._run.wrong += 1
            self._run.first_wrong = self._run.first_wrong or f"connection lost: {exc}"
        if not self.done.done():
            self.done.set_result(None)


def _stages(timings: list[bytes]) -> dict[str, float]:
    """Mean milliseconds by stage of the `Server-Timing` headers that were sampled."""
    total: dict[str, float] = {}
    for value in timings:
        for metric in value.decode().split(","):
            name, *params = (part.strip() for part in metric.split(";"))
            for param in params:
                if param.startswith("dur="):
                    total[name] = total.get(name, 0.0) + float(param[4:])
    return {name: value / len(timings) for name, value in total.items()}


async def _load(target: Target, connections: int, calls: int | None, seconds: float) -> Report:
    run = _Run(target, calls, seconds)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [await loop.create_connection(lambda: _Connection(run), run.host, run.port) for _ in range(connections)]
    done = [protocol.done for _, protocol in opened]
    _, pending = await asyncio.wait(done, timeout=seconds + 30)
    took = time.perf_counter() - began
    if pending:
        run.wrong += len(pending)
        run.first_wrong = run.first_wrong or f"{len(pending)} connections without an answer for 30 s"
        for transport, _ in opened:
            transport.abort()
    ordered = sorted(run.latencies) or [0.0]
    return Report(
        calls=len(run.latencies),
        wrong=run.wrong,
        seconds=took,
        p50=1000 * ordered[len(ordered) // 2],
        p99=1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        first_wrong=run.first_wrong,
        stages=_stages(run.timings),
        p10=1000 * ordered[len(ordered) // 10],
    )


def run(target: Target, connections: int, *, calls: int | None = None, seconds: float = 60) -> Report:
    """Load `target` until `calls` are made or `seconds` have passed, whichever comes first."""
    return uvloop.run(_load(target, connections, calls, seconds))


def apart(target: Target, connections: int, on: set[int], *, calls: int | None = None, seconds: float) -> Report:
    """`run` in a process of its own, on the cores `on`."""
    command = python("-m", "bench.load", target.url, "--tool", target.tool)
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    command += [argument for name, value in target.headers.items() for argument in ("--header", f"{name}={value}")]
    if calls is not None:
        command += ["--calls", str(calls)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "report")
        with started(command, log, on) as tree:
            tree.process.wait(timeout=seconds + 60)
        words = log.read_text()
    if tree.process.returncode != 0:
        raise RuntimeError(f"the load generator failed: {words[-800:]}")
    return Report(**json.loads(words))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--tool", default="echo")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    headers = dict(str(header).split("=", 1) for header in options.header)
    report = run(
        Target(options.url, headers, options.tool), options.connections, calls=options.calls, seconds=options.seconds
    )
    print(json.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main()
