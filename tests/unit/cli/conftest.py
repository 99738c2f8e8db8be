from conftest_cli import run

__all__ = ["run"]
