"""A lasting fault in the log: not at once, once for each reason, again while it lasts."""

from fulcrum_mcp.gateway.complaint import Complaint


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_fails_for_a_moment_is_not_said() -> None:
    clock = Clock()
    complaint = Complaint(1.0, 60.0, clock)
    assert not complaint.due("down")
    clock.now = 0.9
    assert not complaint.due("down")
    assert not complaint.over()
    clock.now = 1.5
    assert not complaint.due("down"), "its patience begins anew"


def test_reasons_that_alternate_are_said_once_each() -> None:
    clock = Clock()
    complaint = Complaint(1.0, 60.0, clock)
    said: list[str] = []
    for turn in range(200):
        clock.now = turn / 10
        reason = ("refused", "busy")[turn % 2]
        if complaint.due(reason):
            said.append(reason)
    assert said == ["refused", "busy"]
    assert complaint.over()


def test_it_is_said_again_while_it_lasts() -> None:
    clock = Clock()
    complaint = Complaint(1.0, 60.0, clock)
    said = 0
    for second in range(181):
        clock.now = float(second)
        said += complaint.due("down")
    assert said == 3
