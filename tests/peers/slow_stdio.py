"""A stdio server of 2026-07-28 by hand: `echo` answers at once; `wait` makes the file `seen` and waits for `go`."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "wait")]


def answer(request_id: object, **result: Any) -> None:
    message = {"jsonrpc": "2.0", "id": request_id, "result": {"resultType": "complete", **result}}
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def text(request_id: object, words: str) -> None:
    answer(request_id, content=[{"type": "text", "text": words}])


def wait(request_id: object) -> None:
    (FOLDER / "seen").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    text(request_id, "waited")


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        request_id, params = message.get("id"), message.get("params", {})
        match message.get("method"):
            case "server/discover":
                answer(
                    request_id,
                    supportedVersions=["2026-07-28"],
                    capabilities={"tools": {}},
                    ttlMs=0,
                    cacheScope="private",
                )
            case "tools/list":
                answer(request_id, tools=TOOLS, ttlMs=0, cacheScope="private")
            case "tools/call" if params["name"] == "wait":
                threading.Thread(target=wait, args=(request_id,), daemon=True).start()
            case "tools/call":
                text(request_id, params["arguments"]["text"])
            case _:
                pass


if __name__ == "__main__":
    main()
