"""`fulcrum policy publish|history|show|restore` on a data folder."""

import json
from pathlib import Path

from conftest_cli import Run

from fulcrum_mcp.composition.policy import explain_input, remember_policies, remembered_policies
from fulcrum_mcp.settings import Settings

ONE = "package fulcrum.policies.one\n\nallow := true\n"


def folder(tmp_path: Path, text: str) -> str:
    place = tmp_path / "mine"
    place.mkdir(exist_ok=True)
    (place / "p.rego").write_text(text)
    return str(place)


def test_publish_history_show_and_restore(run: Run, tmp_path: Path) -> None:
    done = run("policy", "publish", folder(tmp_path, ONE))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("revision 1 (")
    assert "nothing was changed" in run("policy", "publish", folder(tmp_path, ONE)).out
    run("policy", "publish", folder(tmp_path, ONE.replace("one", "two")))
    lines = run("policy", "history").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NUMBER", "2", "1"]
    assert "allow := true" in run("policy", "show", "1").out
    assert "package fulcrum.policies.two" in run("policy", "show").out
    assert run("policy", "restore", "1").out.startswith("revision 3 (")
    found = json.loads(run("policy", "show", "--json").out)["policies"]
    assert found["modules"] == [{"path": "p.rego", "source": ONE}]
    assert run("policy", "show", "9").code == 1


def test_what_is_not_admitted_is_refused_with_its_place(run: Run, tmp_path: Path) -> None:
    refused = run("policy", "publish", folder(tmp_path, "package fulcrum.policies.one\n\nallow if {"))
    assert refused.code in (1, 2)
    assert "p.rego:3" in refused.err
    assert run("policy", "history").code == 3, "no store was made for it"


def test_whoever_is_overruled_by_a_folder_is_told(run: Run, tmp_path: Path) -> None:
    run("policy", "publish", folder(tmp_path, ONE))
    where = Path(folder(tmp_path, ONE))
    remember_policies(Settings(data=tmp_path / "data", policies=where), where)
    assert "win over what is published" in run("policy", "history").err


def test_published_policies_explain_decisions_where_no_folder_was_given(run: Run, tmp_path: Path) -> None:
    run("policy", "publish", folder(tmp_path, ONE))
    where = remembered_policies(tmp_path / "data")
    assert where is not None
    spoken = explain_input(where, {"phase": "call"})
    assert [one["policy"] for one in spoken] == ["one"]
