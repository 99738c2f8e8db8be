"""Policies judged by an external OPA server."""

from fulcrum_adapters.opa.config import OpaConfig
from fulcrum_adapters.opa.engine import OpaEngine

__all__ = ["OpaConfig", "OpaEngine"]
