"""An engine of regorus must end on the thread that made it, whoever lets go of it last."""

import sys
import threading
import weakref
from typing import Any

import pytest

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_mcp.core.policy import PolicyModule, PolicySource

SOURCE = PolicySource((PolicyModule("a.rego", "package fulcrum.policies.a\n\nimport rego.v1\n\nallow := true\n"),))


def test_engine_dropped_on_another_thread_ends_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    held = [RegoEngine(SOURCE)]
    gone = weakref.ref(held[0])
    compiled = weakref.ref(held[0]._family().policies)
    dropping = threading.Thread(target=held.clear)
    dropping.start()
    dropping.join()
    assert gone() is None
    assert compiled() is not None
    assert complaints == []
    assert RegoEngine(SOURCE).judge("call", b"{}")[0].allow
    assert compiled() is None
    assert complaints == []
