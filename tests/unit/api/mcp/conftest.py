"""The gateway's modules, in process and on asyncio."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
