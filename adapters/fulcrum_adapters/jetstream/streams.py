"""The streams with the settings that are promised; made where they are missing, never weakened where they differ.

The audit stream is a work queue: what a processor has stored leaves it, what none has stored never does. It is bounded
by its size; when it is full it refuses, and the spools keep.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fulcrum_adapters.jetstream.config import JetStreamConfig
from fulcrum_adapters.jetstream.connection import Connection, Refused
from fulcrum_adapters.jetstream.subjects import AUDIT, PIECES, STORED
from fulcrum_mcp.errors import Invalid

__all__ = ["CONSUMER", "STREAMS", "Checked", "check_streams", "ensure_consumer", "ensure_streams"]

CONSUMER: Final = "processors"
"""The durable consumer that all processors share."""

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
_NOT_FOUND: Final = 404

STREAMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "FULCRUM_AUDIT": {
        "subjects": [f"{AUDIT}.*"],
        "retention": "workqueue",
        "discard": "new",
        "max_age": 0,
        "duplicate_window": 120 * _SECOND,
    },
    "FULCRUM_PIECES": {
        "subjects": [f"{PIECES}.*.*"],
        "retention": "limits",
        "discard": "new",
        "max_age": 7 * _DAY,
        "duplicate_window": 120 * _SECOND,
        "allow_direct": True,
    },
    "FULCRUM_STORED": {
        "subjects": [f"{STORED}.*"],
        "retention": "limits",
        "discard": "old",
        "max_age": 90 * _DAY,
        "max_msgs_per_subject": 1,
        "duplicate_window": 120 * _SECOND,
    },
    "KV_FULCRUM_CONFIG": {
        "subjects": ["$KV.FULCRUM_CONFIG.>"],
        "retention": "limits",
        "discard": "new",
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "duplicate_window": 120 * _SECOND,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    },
}
"""What makes a stream ours; `storage` is `file` for all of them."""

_STRICT: Final = frozenset({"FULCRUM_AUDIT", "FULCRUM_PIECES"})
"""Those that hold what nobody else may hold: what differs there is refused in `stream` durability."""
_OPEN: Final = frozenset({"max_bytes"})
"""What an operator may set otherwise."""


class Checked(NamedTuple):
    """What a look at the server has shown."""

    warnings: Sequence[str]
    """What differs from what is promised; said at the start."""
    refusals: Sequence[str]
    """What `audit.durability = "stream"` cannot stand on."""


def _wanted(name: str, config: JetStreamConfig) -> dict[str, Any]:
    settings = {"name": name, "storage": "file", "num_replicas": config.replicas, **STREAMS[name]}
    if name == "FULCRUM_AUDIT":
        settings["max_bytes"] = config.max_bytes
    if name == "FULCRUM_PIECES":
        settings["max_bytes"] = config.max_bytes // 4
    return settings


async def ensure_streams(connection: Connection) -> Checked:
    """Make every stream that is not there; compare those that are. Raises `Unavailable`, `Invalid`.

    A stream that is there stays as it is: what it holds may depend on it.
    """
    warnings: list[str] = []
    refusals: list[str] = []
    for name in STREAMS:
        wanted = _wanted(name, connection.config)
        try:
            info = await connection.api(f"STREAM.INFO.{name}")
        except Refused as exc:
            if exc.status != _NOT_FOUND:
                raise
            info = await _create(connection, name, wanted)
        found = _differences(name, wanted, info["config"])
        warnings += found
        if name in _STRICT:
            refusals += found
    return Checked(warnings, refusals)


async def _create(connection: Connection, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return await connection.api(f"STREAM.CREATE.{name}", wanted)
    except Refused as exc:
        try:
            return await connection.api(f"STREAM.INFO.{name}")  # somebody was faster
        except Refused:
            raise Invalid(
                f"the stream {name} cannot be made: {exc}; check jetstream limits (max_file_store) and permissions"
            ) from exc


def _differences(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"stream {name}: {key} is {found.get(key)!r}, promised is {value!r}; change it with your NATS tools"
        for key, value in wanted.items()
        if key not in _OPEN and (found.get(key) or 0) != (value or 0)
    ]


async def check_streams(connection: Connection, checked: Checked, *, stream_mode: bool) -> Sequence[str]:
    """All warnings. Raises `Invalid` for what `audit.durability = "stream"` cannot stand on; only known settings count.

    No client can ask a server for its `sync_interval`: the operator states it in `nats.sync_always`. What can be seen
    is whether JetStream keeps files at all, how many servers hold a record, and the settings of the streams.
    """
    config = connection.config
    warnings = list(checked.warnings)
    refusals = list(checked.refusals)
    limits = (await connection.api("INFO")).get("limits", {})
    if limits.get("max_storage", -1) == 0:
        refusals.append("this NATS account may not keep files; give it max_file")
    if not config.sync_always:
        what = (
            "an acknowledged record may be lost when a NATS server loses power: set `sync_interval: always` in its"
            " jetstream block, and nats.sync_always = true here"
        )
        warnings.append(what)
        refusals.append(what)
    if stream_mode and refusals:
        raise Invalid('audit.durability = "stream" is refused: ' + "; ".join(refusals))
    return warnings


async def ensure_consumer(connection: Connection, *, ack_wait: float, max_ack_pending: int) -> None:
    """The processors' durable consumer: redelivers for ever. Raises `Unavailable`."""
    config = {
        "durable_name": CONSUMER,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "filter_subject": f"{AUDIT}.*",
        "ack_wait": round(ack_wait * _SECOND),
        "max_deliver": -1,
        "max_ack_pending": max_ack_pending,
        "max_waiting": 512,
    }
    await connection.api(
        f"CONSUMER.DURABLE.CREATE.FULCRUM_AUDIT.{CONSUMER}", {"stream_name": "FULCRUM_AUDIT", "config": config}
    )
