"""What a worker takes over from its supervisor."""

import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from fulcrum_mcp.composition import worker as module
from fulcrum_mcp.composition.worker import VARIABLE, inherited, passed
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.gateway.seat import Seat


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_die_with", lambda _: None)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_process_that_was_given_nothing_is_no_worker() -> None:
    assert inherited({"PATH": "/bin"}) is None


def test_worker_takes_the_variable_and_keeps_its_sockets_from_its_children() -> None:
    with socket.socket() as http, socket.socket(socket.AF_UNIX) as relay:
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        given = [os.dup(each.fileno()) for each in (http, relay, theirs)]
        for descriptor in (*given, write):
            os.set_inheritable(descriptor, True)
        environ = {
            VARIABLE: passed(
                Seat(2, 3), http=given[:1], relay=given[1], channel=given[2], trace=write, folder=None, again=True
            )
        }
        worker = inherited(environ)
        assert worker is not None
        assert environ == {}
        assert (worker.seat, worker.again, worker.speaks) == (Seat(2, 3), True, False)
        assert worker.relay is not None
        sockets = [*worker.http, worker.relay, worker._channel]
        assert [each.family for each in sockets] == [socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX]
        assert [os.get_inheritable(each.fileno()) for each in sockets] == [False] * 3
        assert not os.get_inheritable(write)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert "_channel" not in repr(worker)
        for each in (*sockets, ours, theirs):
            each.close()
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("text", ["", "1", "{}", "[]", json.dumps({"seat": [1]}), json.dumps({"seat": "12"})])
def test_variable_that_no_supervisor_has_set_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="unset it"):
        inherited({VARIABLE: text})
