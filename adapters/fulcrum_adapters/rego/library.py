"""The policies that come with Fulcrum: functions for authors (`lib`) and policies ready for use (`starter`).

A wheel carries them inside the package, a checkout in its `policies` folder.
"""

from functools import cache
from pathlib import Path

import fulcrum_mcp
from fulcrum_adapters.rego.documents import read_text
from fulcrum_mcp.core.policy import PolicyModule
from fulcrum_mcp.errors import Unavailable

__all__ = ["MAX_MODULE", "library", "policies_root", "starter_names"]

MAX_MODULE = 1 << 20
"""Bytes of one Rego file."""


@cache
def policies_root() -> Path:
    """The folder that holds `lib` and `starter`. Raises `Unavailable` for a broken installation."""
    package = Path(fulcrum_mcp.__file__).resolve().parent
    for root in (package / "_policies", package.parent / "policies"):
        if (root / "lib").is_dir() and (root / "starter").is_dir():
            return root
    raise Unavailable(f"{package}: the policies that belong to Fulcrum are missing; install it again")


@cache
def library() -> tuple[PolicyModule, ...]:
    """The modules of `lib`, without their tests; part of every policy set."""
    return tuple(
        PolicyModule(f"fulcrum/lib/{path.name}", read_text(path, MAX_MODULE))
        for path in sorted((policies_root() / "lib").glob("*.rego"))
        if not path.name.endswith("_test.rego")
    )


@cache
def starter_names() -> tuple[str, ...]:
    """Names of the starter policies."""
    return tuple(sorted(path.name for path in (policies_root() / "starter").iterdir() if path.is_dir()))
