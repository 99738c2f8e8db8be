"""Which calls a kill switch stops."""

import pytest

from fulcrum_mcp.core.switch import EVERYBODY, KillSwitch, SwitchIndex, SwitchKind, parse_switch_target
from fulcrum_mcp.errors import Invalid

CALL = {"tenant": "acme", "agent": "ann", "key": "k1", "server": "files", "tool": "files__write"}


def switch(kind: SwitchKind, target: str, tenant: str = "acme") -> KillSwitch:
    return KillSwitch("s1", tenant, kind, target, "leak", "ops", 1)


@pytest.mark.parametrize(("kind", "target"), [*CALL.items()])
def test_a_switch_stops_what_it_names(kind: SwitchKind, target: str) -> None:
    for owner in ("acme", EVERYBODY):
        found = SwitchIndex([switch(kind, target, owner)]).stopping(CALL)
        assert found is not None
        assert found.target == target


@pytest.mark.parametrize("kind", ["agent", "key", "server", "tool"])
def test_a_switch_stops_nobody_else(kind: SwitchKind) -> None:
    assert SwitchIndex([switch(kind, "other")]).stopping(CALL) is None
    assert SwitchIndex([switch(kind, CALL[kind], "globex")]).stopping(CALL) is None
    assert SwitchIndex().stopping(CALL) is None


@pytest.mark.parametrize("text", ["agent:ann", " tool:files__write ", "key:a:b"])
def test_targets_as_people_write_them(text: str) -> None:
    kind, target = parse_switch_target(text, "x")
    assert text.strip() == f"{kind}:{target}"


@pytest.mark.parametrize("text", ["", "agent", "agent:", "robot:x", "agent:a\nb", "agent:" + "x" * 257, None, 7])
def test_a_target_that_names_nothing_is_refused_with_the_form(text: object) -> None:
    with pytest.raises(Invalid, match="write KIND:NAME"):
        parse_switch_target(text, "--target")
