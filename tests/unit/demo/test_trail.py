from pathlib import Path

import pytest

from fulcrum_mcp.demo.trail import forge


def test_forged_copy_differs_in_one_word_of_one_record(tmp_path: Path) -> None:
    trail, copy = tmp_path / "trail", tmp_path / "copy"
    trail.write_bytes(b'{"seq":1,"effect":"allow"}\n{"seq":2,"effect":"deny"}\n{"seq":3,"effect":"deny"}\n')
    assert forge(trail, copy) == 'line 2: "effect":"deny" made "effect":"allow"'
    assert copy.read_bytes() == b'{"seq":1,"effect":"allow"}\n{"seq":2,"effect":"allow"}\n{"seq":3,"effect":"deny"}\n'


def test_trail_with_nothing_to_hide_cannot_be_forged(tmp_path: Path) -> None:
    (tmp_path / "trail").write_bytes(b"{}\n")
    with pytest.raises(ValueError, match="nothing in it is worth forging"):
        forge(tmp_path / "trail", tmp_path / "copy")
