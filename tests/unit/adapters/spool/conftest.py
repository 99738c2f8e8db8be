from collections.abc import Iterator

import pytest
from spool_folders import open_files


@pytest.fixture(autouse=True)
def _no_open_files_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() <= before
