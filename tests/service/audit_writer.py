"""Writes calls into the spool of a data folder, says on stdout what was acknowledged, until it is killed.

argv: data folder, durability, batch, first number, rlimit of a file in bytes (0: none).
"""

import resource
import sys
from pathlib import Path

from audit_trails import decided, finished

from fulcrum_mcp.composition.audit import open_processor, open_spool
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.processor import ProcessorConfig


def main() -> None:
    data, durability, batch, number, limit = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    processor = open_processor(Path(data), ProcessorConfig(poll=0.01, checkpoint_every=0.05))
    spool = open_spool(Path(data), durability=durability)
    for call in spool.open_calls:
        spool.append([finished(call.call, leg=call.leg, outcome="outcome_unknown")])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    else:
        processor.start()
    while True:
        drafts: list[RecordDraft] = []
        for _ in range(batch):
            number += 1
            drafts += [decided(f"call_{number:08d}"), *([finished(f"call_{number - 3:08d}")] if number % 5 else [])]
        try:
            refs = spool.append(drafts)
        except Unavailable as exc:
            sys.stdout.write(f"refused {exc}\n")
            sys.stdout.flush()
            return
        sys.stdout.write("".join(f"{ref.chain} {ref.seq} {ref.hash}\n" for ref in refs))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
