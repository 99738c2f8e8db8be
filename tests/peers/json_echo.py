"""A stdio server of both eras that answers every request with its own line, as JSON text it did not touch."""

import json
import sys
from typing import Any, Final

MODERN: Final = "2026-07-28"
KNOWN: Final[dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "echo", "version": "1"},
    },
    "server/discover": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}], "ttlMs": 60000},
}


def main() -> None:
    for line in sys.stdin.buffer:
        text = line.strip().decode()
        message = json.loads(text)
        if "id" not in message or "method" not in message:
            continue
        known = KNOWN.get(message["method"])
        result = json.dumps({"resultType": "complete", "cacheScope": "private", **known}) if known else None
        request_id = json.dumps(message["id"])
        body = result or f'{{"resultType":"complete","content":[],"line":{text}}}'
        note = f'{{"jsonrpc":"2.0","method":"notifications/vendor","params":{{"line":{text}}}}}\n' if not known else ""
        sys.stdout.write(f'{note}{{"jsonrpc":"2.0","id":{request_id},"result":{body},"x-line":{text}}}\n')
        sys.stdout.flush()


if __name__ == "__main__":
    main()
