"""The pure heart: frozen dataclasses and functions. No I/O, clock, randomness, async or third-party import."""
