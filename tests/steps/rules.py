"""The gateway of a course as configured: budgets that overlap, a rate, and a policy that looks back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from steps.gateway import ADMIN

from fulcrum_mcp.settings import Settings, load

__all__ = ["MOST", "settings_of"]

MOST: Final[Mapping[str, int]] = {"scarce": 1, "paced": 1, "added": 1}
"""Calls of a tool that its budget or its rate admits in a course's time."""
CONFIG: Final = """\
[[server]]
name = "marks"
url = "{url}"

[[budget]]
name = "all"
scope = "tenant"
calls = 1000
usd = 1.0
period = "infinite"
action = "hard"

[[budget]]
name = "each"
scope = "agent"
calls = 1000
tokens = 1000
period = "infinite"

[[budget]]
name = "scarce"
scope = "tool:marks__scarce"
calls = 1
period = "infinite"
action = "hard"

[[rate]]
name = "paced"
scope = "tool:marks__paced"
limit = "1/hour:1"
"""
POLICY: Final = """\
package fulcrum.policies.steps

import rego.v1

allow := true

deny contains {"code": "tainted", "message": "what was read here stays here"} if {
	input.phase == "call"
	input.tool.name == "export"
	"pii" in input.history.taints
}

deny contains {"code": "broke", "message": "nothing is left"} if {
	input.phase == "call"
	input.budget.remaining.calls < 0
}

taint contains "pii" if {
	input.phase == "result"
	input.tool.name == "secret"
}

cost := {"usd_micros": 50} if input.phase == "call"

cost := {"usd_micros": 30} if {
	input.phase == "result"
	input.tool.name != "dear"
}

cost := {"usd_micros": 80} if {
	input.phase == "result"
	input.tool.name == "dear"
}
"""


def settings_of(folder: Path, upstream: str, redis: str) -> Settings:
    """Written into `folder`, and read as `fulcrum server` would."""
    policies = folder / "policies"
    policies.mkdir(parents=True)
    (policies / "steps.rego").write_text(POLICY)
    config = folder / "fulcrum.toml"
    config.write_text(CONFIG.format(url=upstream))
    environ = {
        "FULCRUM_ADMIN_KEY": ADMIN,
        "FULCRUM_REDIS_URL": redis,
        "FULCRUM_POSTGRES_URL": "postgresql://nobody@127.0.0.1:1/none",
        "FULCRUM_NATS_URL": "nats://127.0.0.1:1",
    }
    return load(config, environ=environ, overrides={"data": folder / "data", "policies": str(policies)})
