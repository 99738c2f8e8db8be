"""Every worker of a host agrees on who keeps a handle."""

import pytest

from fulcrum_mcp.gateway.seat import Seat


def keepers(count: int, stated: object, handle: str) -> set[int]:
    """Who says that it keeps the handle; what the others say must name the same."""
    seats = [Seat(number, count) for number in range(1, count + 1)]
    said = {seat.number: seat.elsewhere(stated, handle) for seat in seats}
    mine = {number for number, other in said.items() if other is None}
    assert {other for other in said.values() if other is not None} <= mine
    return mine


def test_lone_worker_keeps_everything() -> None:
    assert Seat().elsewhere(7, "x") is None
    assert not Seat().shared


@pytest.mark.parametrize("count", [2, 3, 8])
def test_handle_belongs_to_the_worker_that_it_names(count: int) -> None:
    for number in range(1, count + 1):
        assert keepers(count, number, f"handle {number}") == {number}


@pytest.mark.parametrize("stated", [None, 0, 9, -1, True, 1.0, "1", [1]])
def test_handle_that_names_no_worker_of_today_still_has_one_keeper_only(stated: object) -> None:
    found = [keepers(3, stated, f"handle {number}") for number in range(60)]
    assert all(len(each) == 1 for each in found)
    assert set().union(*found) == {1, 2, 3}
