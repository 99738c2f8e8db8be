"""UUIDv7: well formed, sortable by time, never twice, also not in a child process or another thread."""

import os
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from fulcrum_mcp.gateway.ids import new_id, now_ns

FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_form_version_and_variant_are_those_of_rfc_9562() -> None:
    for _ in range(500):
        text = new_id()
        assert FORM.fullmatch(text)
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_time_stands_first() -> None:
    before = time.time_ns() // 1_000_000
    stamped = int(new_id().replace("-", "")[:12], 16)
    assert before <= stamped <= now_ns() // 1_000_000


def test_never_twice_in_many_threads() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [new_id() for _ in range(2000)], range(16)))
    found = {text for batch in batches for text in batch}
    assert len(found) == 32_000
    randoms = {text[14:] for text in found}
    assert len(randoms) == 32_000


def test_child_process_makes_others() -> None:
    new_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "".join(new_id()[14:] + "\n" for _ in range(50)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as lines:
        theirs = set(lines.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert theirs.isdisjoint({new_id()[14:] for _ in range(50)})
