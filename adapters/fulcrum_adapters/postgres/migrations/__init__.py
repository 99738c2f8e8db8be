"""The schema's history, forward only: one module of `versions` a step, run by Alembic inside one transaction.

A step is SQL text of its own time: it must never use the tables' present definition. A test compares where all steps
lead with `fulcrum_adapters.tables`.
"""
