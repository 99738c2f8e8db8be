"""Fulcrum: a governance gateway between LLM agents and their tools, MCP first."""

__version__ = "0.1.0"

__all__ = ["__version__"]
