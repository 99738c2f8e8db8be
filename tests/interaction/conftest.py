"""Everything here runs in process: see `gateway_rig`."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
