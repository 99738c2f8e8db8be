"""A stdio server that does as it is told, for faults and routing: a tool's name is a behaviour."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
held: list[Json] = []
listeners: list[Any] = []
asking: dict[Any, Any] = {}
seen: list[Json] = []


def raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def send(message: Json) -> None:
    raw(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def answer(request: Json, result: Any) -> None:
    send({"id": request["id"], "result": result})


def notify(method: str, params: Json) -> None:
    send({"method": method, "params": params})


def text(request: Json, value: Any) -> None:
    answer(request, {"content": [{"type": "text", "text": json.dumps(value)}]})


def call(request: Json, name: str, args: Json) -> None:  # noqa: C901, PLR0912, PLR0915  # one branch a behaviour
    meta = request["params"].get("_meta", {})
    if name == "echo":
        answer(request, {"echo": args, "_meta": meta, "number": 123456789012345678901234567890})
    elif name == "seen":
        text(request, seen)
    elif name == "environment":
        text(request, dict(os.environ))
    elif name == "descriptors":
        text(request, sorted(int(path.name) for path in Path("/dev/fd").iterdir()))
    elif name == "pid":
        text(request, os.getpid())
    elif name == "progress":
        for step in range(args["steps"]):
            notify("notifications/progress", {"progressToken": meta["progressToken"], "progress": step, "canary": args})
        answer(request, {"echo": args})
    elif name == "log":
        notify("notifications/message", {"level": "info", "data": args})
        answer(request, {"echo": args})
    elif name == "log_and_hold":
        notify("notifications/message", {"level": "info", "data": args})
        held.append(request)
    elif name == "changed":
        notify("notifications/tools/list_changed", {})
        answer(request, {})
    elif name == "hold":
        held.append(request)
    elif name == "release":
        answer(request, {})
        for old in held:
            answer(old, {"echo": old["params"]["arguments"]})
        held.clear()
    elif name == "ask":
        asking["q1"] = request
        send({"id": "q1", "method": "elicitation/create", "params": {"message": "name?"}})
    elif name == "garbage":
        raw("Starting up...\n\n{not json\n[1, 2]\n")
        os.write(1, b"\xff\xfe\n")
        answer(request, {})
    elif name == "batch":
        raw(json.dumps([{"jsonrpc": "2.0", "id": request["id"], "result": {"echo": args}}]) + "\n")
    elif name == "halves":
        whole = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"echo": args}}) + "\n"
        for at in range(0, len(whole), 7):
            raw(whole[at : at + 7])
            time.sleep(0.001)
    elif name == "huge":
        answer(request, {"blob": "x" * args["size"]})
    elif name == "flood":
        for step in range(args["lines"]):
            notify("notifications/message", {"level": "info", "data": str(step) * args.get("width", 1)})
        answer(request, {"echo": args})
    elif name == "crash":
        sys.stderr.write(f"boom: cannot go on with {os.environ.get('TOKEN', 'nothing')}\nlast line without an end")
        sys.stderr.flush()
        os._exit(3)
    elif name == "answer_and_exit":
        answer(request, {"blob": "y" * 200_000})
        os._exit(0)
    elif name == "close_stdout":
        os.close(1)
        time.sleep(30)
    elif name == "deaf":
        time.sleep(30)
    elif name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        text(request, os.getpid())
        while True:
            time.sleep(30)
    elif name == "fork":
        child = subprocess.Popen(["sleep", "60"])
        text(request, child.pid)
    elif name == "emit":
        for number in listeners:
            notify("notifications/tools/list_changed", {"_meta": {SUBSCRIPTION: number}})
        answer(request, {})
    elif name == "end_by_result":
        answer(request, {})
        for number in listeners:
            send({"id": number, "result": {"_meta": {SUBSCRIPTION: number}}})
        listeners.clear()
    elif name == "end_by_cancel":
        answer(request, {})
        for number in listeners:
            notify("notifications/cancelled", {"requestId": number})
        listeners.clear()
    else:
        send({"id": request["id"], "error": {"code": -32602, "message": f"no {name}", "extra": [1]}})


def handle(message: Json) -> None:
    method = message.get("method")
    if method is None:
        old = asking.pop(message["id"], None)
        if old is not None:
            answer(old, {"answered": message.get("result")})
    elif "id" not in message:
        return
    elif method == "initialize" and os.environ.get("MUTE"):
        held.append(message)
    elif method == "initialize":
        if os.environ.get("REFUSE"):
            send({"id": message["id"], "error": {"code": -32602, "message": "refused"}})
            return
        version = message["params"]["protocolVersion"]
        info = {"name": "scripted", "version": "0"}
        answer(message, {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info, "extra": 1.50})
    elif method == "subscriptions/listen":
        listeners.append(message["id"])
        notify("notifications/subscriptions/acknowledged", {"_meta": {SUBSCRIPTION: message["id"]}})
    elif method == "tools/call":
        call(message, message["params"]["name"], message["params"].get("arguments", {}))
    elif method == "ping":
        answer(message, {})
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": "unknown method"}})


if os.environ.get("DIE_AT_START"):
    sys.exit("no database")
if os.environ.get("IGNORE_END"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    incoming = json.loads(line)
    seen.append(incoming)
    handle(incoming)
while os.environ.get("IGNORE_END"):
    time.sleep(30)
