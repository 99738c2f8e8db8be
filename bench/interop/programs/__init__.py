"""Programs that `bench.interop` runs, each in the environment of its client."""
