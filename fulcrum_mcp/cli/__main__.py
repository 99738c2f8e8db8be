"""`python -m fulcrum_mcp.cli`."""

from fulcrum_mcp.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
