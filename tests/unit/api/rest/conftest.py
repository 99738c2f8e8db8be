from conftest_rest import rest

__all__ = ["rest"]
