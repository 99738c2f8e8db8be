"""SQLite: ledger, history, keys, budgets, audit store."""
