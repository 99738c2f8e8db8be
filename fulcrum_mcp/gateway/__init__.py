"""The data plane (enforcement): exchange, govern, catalog, journal, snapshot."""
