"""Policies judged by an external OPA server."""
