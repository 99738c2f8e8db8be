"""Stdio servers behind the `Upstream` port."""

from fulcrum_adapters.upstream.stdio.config import StdioConfig
from fulcrum_adapters.upstream.stdio.upstream import StdioUpstream

__all__ = ["StdioConfig", "StdioUpstream"]
