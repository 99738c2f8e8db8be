"""`python -m bench.pipeline_writer`: writes records through a real spool, as a gateway's journal does, and counts them.

Pairs of `decided` (with inputs beside it) and `finished`, about 1.2 KB a record, one group commit every 10 ms. It says
on stdout every 50 ms how many it has written, with the time of the monotonic clock.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from fulcrum_adapters.spool import Spool, SpoolConfig
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.ids import new_id, now_ns

__all__ = ["main"]

_TICK = 0.01
_SAY = 0.05
_MOST = 512
"""Records in one group commit."""
_MAC = "hmac-sha256:" + "5e" * 32
_DECIDED = (
    '{"decision_id":"%(decision)s","call_id":"%(call)s","leg":0,"method":"tools/call","server":"files",'
    '"tool":"%(tool)s","pin":"sha256:' + "ab" * 32 + '","principal":{"agent":"agent-%(agent)d","key":'
    '"key_%(agent)032d","roles":["developer","reader"]},"effect":"allow","snapshot":"' + "cd" * 16 + '","reasons":[],'
    '"warnings":[],"policies":{"limits":"' + "1f" * 16 + '","secrets":"' + "2f" * 16 + '","tools":"' + "3f" * 16 + '"},'
    '"cost":{"calls":1,"usd_micros":1200},"budgets":[{"id":"bud_%(agent)032d","bucket":"agent:agent-%(agent)d",'
    '"starts":1795478400000000},{"id":"bud_' + "9" * 32 + '","bucket":"tool:files__%(tool)s",'
    '"starts":1793491200000000}],"arguments_mac":"' + _MAC + '","context":{"client":"bench/1","protocol":'
    '"2026-07-28","workflow":"wf-%(agent)d"},"duration_us":184,"reserved":{"calls":1,"usd_micros":1200}}'
)
_FINISHED = (
    '{"decision_id":"%(decision)s","call_id":"%(call)s","leg":0,"server":"files","tool":"%(tool)s",'
    '"principal":{"agent":"agent-%(agent)d","key":"key_%(agent)032d","roles":["developer","reader"]},"outcome":"ok",'
    '"is_error":false,"result_mac":"' + _MAC + '","bytes":1043,"duration_us":2212,"cost":{"calls":1,'
    '"usd_micros":1200},"charged":{"calls":1,"usd_micros":1200}}'
)
_INPUTS = json.dumps({"arguments": {"path": "/srv/reports/2026/11/summary.md", "text": "lorem ipsum " * 16}}).encode()


def _drafts(number: int, tenants: int) -> list[RecordDraft]:
    """`number` calls: a decision and an end each."""
    found: list[RecordDraft] = []
    for _ in range(number):
        call = new_id()
        agent = len(found) // 2 % 32
        values = {"call": f"call_{call}", "decision": f"dec_{call}", "agent": agent, "tool": f"tool{agent % 7}"}
        tenant, subject, at = f"tenant{agent % tenants}", f"call_{call}", now_ns()
        decided, finished = (_DECIDED % values).encode(), (_FINISHED % values).encode()
        found.append(RecordDraft(call, tenant, "dev.fulcrum.tool_call.decided", subject, at, decided, _INPUTS))
        found.append(RecordDraft(new_id(), tenant, "dev.fulcrum.tool_call.finished", subject, at, finished))
    return found


def _say(written: int, refused: int) -> None:
    sys.stdout.write(f"{time.monotonic():.3f} {written} {refused}\n")
    sys.stdout.flush()


def _room(options: argparse.Namespace, written: int) -> bool:
    """Under `--window`: less than that is on its way. Who watches writes into the file how many are in the store."""
    if options.window is None:
        return True
    try:
        return bool(written - int(options.stored.read_text() or 0) < options.window)
    except (OSError, ValueError):
        return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline_writer", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rate", type=float, help="records a second; without it as many as --window lets")
    parser.add_argument("--window", type=int)
    parser.add_argument("--stored", type=Path)
    parser.add_argument("--tenants", type=int, default=4)
    options = parser.parse_args()
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    written = refused = 0
    began = said = time.monotonic()
    with Spool.open(options.data / "spool", SpoolConfig("sync", max_bytes=4 << 30)) as spool:
        while not stopping:
            now = time.monotonic()
            due = _MOST if options.rate is None else int((now - began) * options.rate) - written - refused
            if due >= 2 and _room(options, written):
                drafts = _drafts(min(due, _MOST) // 2, options.tenants)
                try:
                    spool.append(drafts)
                    written += len(drafts)
                except Unavailable:
                    refused += len(drafts)
            if now - said >= _SAY:
                said = now
                _say(written, refused)
            time.sleep(max(0.0, _TICK - (time.monotonic() - now)))
    _say(written, refused)


if __name__ == "__main__":
    main()
