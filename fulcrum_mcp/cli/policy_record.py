"""A recorded decision and the input that policy saw, from the data folder or from a running gateway."""

import json
import os
from pathlib import Path
from typing import Any

from fulcrum_mcp.cli.target import gateway_address
from fulcrum_mcp.errors import NotFound, Unavailable

__all__ = ["recorded"]

_PATIENCE = 2.0


def recorded(decision_id: str, data: Path | None, url: str | None) -> tuple[dict[str, Any], Any]:
    """(the record's data, the redacted input or None). Raises `NotFound`, `Invalid`, `Unavailable`, ..."""
    address = gateway_address(url, data)
    if address is not None:
        from fulcrum_mcp.cli.audit_remote import RemoteTrail  # noqa: PLC0415 - one of the two is needed

        decided, inputs = RemoteTrail(address).decision(decision_id)
        if not isinstance(decided.get("data"), dict):
            raise Unavailable(f"{address}: answered something unexpected; is it a Fulcrum of this version?")
        return decided["data"], inputs
    from fulcrum_mcp.composition.audit import open_trail  # noqa: PLC0415 - loads SQLite
    from fulcrum_mcp.settings import load  # noqa: PLC0415

    folder = load(None, environ=os.environ, overrides={"data": data}).data
    with open_trail(folder, _PATIENCE) as trail:
        found = trail.reader.decision(None, decision_id)
    if found is None:
        raise NotFound(f"{folder}: no decision {decision_id}; `fulcrum audit query` lists them")
    return json.loads(found.decided)["data"], None if found.inputs is None else json.loads(found.inputs)
