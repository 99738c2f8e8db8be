"""`python -m bench.interop`: clients and servers that we did not write, direct and through Fulcrum."""
