"""The private folder in which workers meet."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sibling_sockets import short_folder

from fulcrum_mcp.composition.meeting import Meeting
from fulcrum_mcp.errors import Unavailable


@pytest.fixture
def data() -> Iterator[Path]:
    with short_folder() as name:
        yield Path(name)


def reach(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_every_worker_has_a_socket_that_listens_in_a_folder_of_our_own(data: Path) -> None:
    with Meeting(data, 2) as meeting:
        assert meeting.folder.parent == data / "workers"
        assert [path.stat().st_mode & 0o777 for path in (data / "workers", meeting.folder)] == [0o700, 0o700]
        for number in (1, 2):
            reach(meeting.folder / f"{number}.sock")
        meeting.close_sockets()
        with pytest.raises(ConnectionRefusedError):
            reach(meeting.folder / "1.sock")
    assert list((data / "workers").iterdir()) == []


def test_two_supervisors_share_a_data_folder(data: Path) -> None:
    with Meeting(data, 1) as one:
        with Meeting(data, 1) as two:
            assert one.folder != two.folder
        reach(one.folder / "1.sock")


def test_what_a_killed_supervisor_left_is_taken_away_and_nothing_else(data: Path) -> None:
    dead = data / "workers" / "dead"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "1.sock").touch()
    starting = data / "workers" / "starting"
    starting.mkdir()
    (data / "workers" / "note").touch()
    with Meeting(data, 1):
        assert not dead.exists()
        assert starting.exists()
        assert (data / "workers" / "note").exists()


def test_data_folder_with_a_long_path_meets_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 100)
    data.mkdir()
    with Meeting(data, 2) as meeting:
        assert data not in meeting.folder.parents
        assert meeting.folder.stat().st_mode & 0o777 == 0o700
        reach(meeting.folder / "2.sock")
    assert not meeting.folder.exists()
    assert list((data / "workers").iterdir()) == []


def test_folder_that_cannot_be_made_is_said(data: Path) -> None:
    (data / "workers").touch()
    with pytest.raises(Unavailable, match="the workers cannot meet there"), Meeting(data, 1):
        pass
