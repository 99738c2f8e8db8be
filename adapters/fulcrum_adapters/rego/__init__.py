"""Rego by regorus, in process."""
