"""PostgreSQL 16 or newer: the store of an installation with several gateways. Imported by the full mode only."""
