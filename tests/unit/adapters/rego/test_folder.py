"""Folders of policies: what is read, what is refused, and the mark that watchers poll."""

import os
import time
from pathlib import Path

import pytest

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import fingerprint, passed_over, read_folder, read_policies, starter
from fulcrum_adapters.rego.library import library, policies_root
from fulcrum_mcp.core.policy import PolicySource
from fulcrum_mcp.errors import Invalid

ALLOW = "package fulcrum.policies.{}\n\nallow := true\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def own(source: PolicySource) -> list[str]:
    return [module.path for module in source.modules[len(library()) :]]


def test_rego_at_any_depth_is_read_and_tests_are_not(tmp_path: Path) -> None:
    write(tmp_path / "a.rego", ALLOW.format("a"))
    write(tmp_path / "deep/er/b.rego", ALLOW.format("b"))
    write(tmp_path / "a_test.rego", "package x_test\n")
    write(tmp_path / ".hidden/c.rego", "nonsense")
    write(tmp_path / "cases/one.yaml", "[]")
    source = read_folder(tmp_path)
    assert own(source) == [str(tmp_path / "a.rego"), str(tmp_path / "deep/er/b.rego")]
    assert RegoEngine(source).info.names == ("a", "b")


def test_a_document_that_nothing_reads_is_named(tmp_path: Path) -> None:
    for name in (
        "a.rego",
        "data.json",
        "data/limits.yaml",
        "cases/a.yaml",
        "deep/data.yml",
        "limits.json",
        "deep/x.yaml",
    ):
        write(tmp_path / name, "{}")
    found = passed_over(tmp_path)
    assert [problem.path for problem in found] == [str(tmp_path / "limits.json"), str(tmp_path / "deep/x.yaml")]
    assert {problem.severity for problem in found} == {"warning"}
    assert "data.limits" in found[0].hint
    assert not passed_over(tmp_path / "a.rego")


def test_no_starter_policy_has_a_document_that_nothing_reads() -> None:
    assert not passed_over(policies_root() / "starter")


def test_one_file_is_a_policy_set(tmp_path: Path) -> None:
    assert RegoEngine(read_policies(str(write(tmp_path / "a.rego", ALLOW.format("a"))))).info.names == ("a",)


def test_the_library_is_always_there(tmp_path: Path) -> None:
    text = 'package fulcrum.policies.a\nimport data.fulcrum.lib\nallow if lib.path_within(input.p, "/srv")\n'
    engine = RegoEngine(read_folder(write(tmp_path / "a.rego", text)))
    assert engine.judge("call", b'{"p": "/srv/a"}')[0].allow
    assert not engine.judge("call", b'{"p": "/srv/../a"}')[0].allow


def test_data_documents_are_merged(tmp_path: Path) -> None:
    write(tmp_path / "data.json", '{"a": {"x": 1}}')
    write(tmp_path / "sub/data.yaml", "a:\n  y: 2026-01-01\nb: [yes, 1]\n")
    write(tmp_path / "data/roles.yaml", "reader: [x]\n")
    assert read_folder(tmp_path).data == {"a": {"x": 1, "y": "2026-01-01"}, "b": [True, 1], "roles": {"reader": ["x"]}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("data.json", '{"a": 1, "a": 2}', "twice"),
        ("data.json", '{"a": NaN}', "NaN"),
        ("data.json", '{"a": ', "data.json:1:"),
        ("data.json", "[1]", "not an object"),
        ("data.yaml", "a: 1\na: 2\n", "twice"),
        ("data.yaml", "a: &x [1]\nb: *x\n", "aliases"),
        ("data.yaml", "a: [1\n", "data.yaml:"),
        ("data.yaml", "a: !!python/object/apply:os.getcwd []\n", "data.yaml:"),
        ("data.yaml", "? [1, 2]\n: x\n", "key"),
        ("a.rego", "package fulcrum.policies.a\n" + "# x\n" * 300_000, "larger"),
    ],
)
def test_a_file_that_is_doubtful_is_refused_by_name(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path / name, text)
    with pytest.raises(Invalid, match=said) as caught:
        read_folder(tmp_path)
    assert name in str(caught.value)


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "data.json", '{"a": {"x": 1}}')
    write(tmp_path / "sub/data.json", '{"a": {"x": 2}}')
    with pytest.raises(Invalid, match=r"data\.a\.x"):
        read_folder(tmp_path)


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_bytes(b"package fulcrum.policies.a\n# \xff\n")
    with pytest.raises(Invalid, match="UTF-8"):
        read_folder(tmp_path)


def test_a_link_that_leads_outside_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    write(outside / "b.rego", ALLOW.format("b"))
    write(inside / ".real/a.rego", ALLOW.format("a"))
    (inside / "a.rego").symlink_to(inside / ".real/a.rego")
    assert RegoEngine(read_folder(inside)).info.names == ("a",)
    (inside / "b.rego").symlink_to(outside / "b.rego")
    with pytest.raises(Invalid, match="leads out"):
        read_folder(inside)
    (inside / "b.rego").unlink()
    (inside / "all").symlink_to(outside)
    with pytest.raises(Invalid, match="leads out"):
        read_folder(inside)


def test_what_is_not_there_is_said_with_a_guess(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="did you mean allow_all"):
        read_policies("alow_all")
    with pytest.raises(Invalid, match="no such folder"):
        read_folder(tmp_path / "none")


def test_a_folder_wins_over_a_starter_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "observe/mine.rego", ALLOW.format("mine"))
    assert RegoEngine(read_policies("observe")).info.names == ("observe",)
    monkeypatch.chdir(tmp_path)
    assert RegoEngine(read_policies("observe")).info.names == ("mine",)


def test_a_copied_starter_is_the_starter(tmp_path: Path) -> None:
    folder = policies_root() / "starter" / "role_allow_list"
    write(tmp_path / "x/role_allow_list.rego", (folder / "role_allow_list.rego").read_text())
    write(tmp_path / "x/data.json", (folder / "data.json").read_text())
    copied, original = RegoEngine(read_folder(tmp_path)), RegoEngine(starter("role_allow_list"))
    assert copied.info.revision == original.info.revision


def test_the_fingerprint_changes_with_every_file_that_matters(tmp_path: Path) -> None:
    seen = {fingerprint(tmp_path / "none"), fingerprint(tmp_path)}
    policy = write(tmp_path / "a.rego", ALLOW.format("a"))
    seen.add(fingerprint(tmp_path))
    write(tmp_path / "sub/data.json", "{}")
    seen.add(fingerprint(tmp_path))
    policy.write_text(ALLOW.format("b"))
    os.utime(policy, ns=(1, 1))
    seen.add(fingerprint(tmp_path))
    policy.rename(tmp_path / "b.rego")
    seen.add(fingerprint(tmp_path))
    (tmp_path / "b.rego").unlink()
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 7
    last = fingerprint(tmp_path)
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / ".git/x.rego", "x")
    assert fingerprint(tmp_path) == last


def test_the_fingerprint_of_one_file(tmp_path: Path) -> None:
    policy = write(tmp_path / "a.rego", "x")
    first = fingerprint(policy)
    os.utime(policy, ns=(1, 1))
    assert fingerprint(policy) != first


def test_the_fingerprint_is_cheap(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / f"{number}.rego", "x")
    begun = time.process_time()
    for _ in range(20):
        fingerprint(tmp_path)
    assert (time.process_time() - begun) / 20 < 0.02
