"""What tests of kill switches share."""

from typing import Any

from gateway_rig import Rig

from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.switch import KillSwitch, SwitchKind
from fulcrum_mcp.gateway.ids import now_ns

__all__ = ["CALLS", "ECHO", "PATH", "WHY", "balance", "outcomes", "switch", "told"]

PATH = "/servers/files/mcp"
ECHO = {"name": "echo", "arguments": {}}
CALLS = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 100})
WHY = "agent ann is stopped: it runs wild"


def switch(kind: SwitchKind = "agent", target: str = "ann", tenant: str = "acme") -> KillSwitch:
    return KillSwitch(f"ks_{kind}", tenant, kind, target, "it runs wild", "operator", 1)


def outcomes(rig: Rig) -> list[str]:
    return [record["data"]["outcome"] for record in rig.records("finished")]


def balance(rig: Rig) -> tuple[int, int]:
    usage = rig.ledger.usage([CALLS], now_ns())
    return (usage[0].committed["calls"], usage[0].reserved["calls"]) if usage else (0, 0)


def told(message: Any) -> str:
    """The text of a denial for a kill switch."""
    result = message["result"]
    assert result["isError"] is True
    reasons = result["_meta"]["dev.fulcrum/decision"]["reasons"]
    assert [reason["code"] for reason in reasons] == ["stopped"]
    return str(result["content"][0]["text"])
