"""What is published is admitted exactly as a folder is."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fulcrum_adapters.rego.library import library
from fulcrum_mcp.composition.admission import FolderAdmission
from fulcrum_mcp.composition.policy import policy_files
from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.errors import Invalid

GOOD = "package fulcrum.policies.p\n\nimport rego.v1\n\nallow if input.arguments.n < data.most\n"
CASES = """- name: few
  input: {tool: {name: t}, arguments: {n: 1}}
  want: {effect: allow}
- name: many
  input: {tool: {name: t}, arguments: {n: 9}}
  want: {effect: deny}
"""
TEST = """package fulcrum.policies.p_test

import rego.v1

import data.fulcrum.policies.p

test_few if p.allow with input as {"arguments": {"n": 1}}
"""
FILES = {"deep/p.rego": GOOD, "deep/p_test.rego": TEST, "cases/p.yaml": CASES, "data.json": '{"most": 5}'}
LOOP = "package fulcrum.policies.p\n\nimport rego.v1\n\nallow if { some i in numbers.range(1, 100000000); i == -1 }\n"


def test_a_folder_becomes_a_set_of_relative_paths_without_the_library() -> None:
    source = FolderAdmission().files("mine", {**FILES, "lib.rego": library()[0].source})
    assert [module.path for module in source.modules] == ["deep/p.rego"]
    assert (source.modules[0].source, source.data, source.name) == (GOOD, {"most": 5}, "mine")


REFUSED: Mapping[str, tuple[dict[str, str], str]] = {
    "syntax": ({**FILES, "deep/p.rego": "package fulcrum.policies.p\n\nallow if {"}, r"^deep/p\.rego:3"),
    "test rule fails": ({**FILES, "data.json": '{"most": 1}'}, r"deep/p_test\.rego:.*test_few fails"),
    "case fails": ({**FILES, "data.json": '{"most": 50}'}, r"cases/p\.yaml: case 'many' fails"),
    "case file": ({**FILES, "cases/p.yaml": "- 5"}, r"^cases/p\.yaml"),
    "data": ({**FILES, "data.json": "{"}, r"^data\.json"),
    "never ends": ({"p.rego": LOOP}, "processor time|out of memory"),
    "no policy": ({"lib.rego": "package mine\n\nx := 1\n"}, "no policy in it"),
    "no files": ({}, "give 1 to"),
    "only data": ({"data.json": "{}"}, "no policy in it"),
    "no text": ({"p.rego": "package fulcrum.policies.p\n# \ud800\n"}, r"^p\.rego: not text"),
    "a file and its folder": ({"a.rego/b.rego": GOOD, "a.rego": GOOD}, "cannot be laid out"),
}


@pytest.mark.parametrize(("files", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_its_place_in_the_set(files: dict[str, str], said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        FolderAdmission().files("mine", files)
    assert "/tmp" not in str(refused.value)
    assert "fulcrum-policies-" not in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        "../p.rego",
        "/etc/p.rego",
        "a/../p.rego",
        ".hidden/p.rego",
        "a//p.rego",
        "p.sh",
        "",
        "a\x00.rego",
        "x" * 200 + ".rego",
        "/".join("d" * 12) + ".rego",
        "a\\p.rego",
        "~/p.rego",
        "p.rego\n",
    ],
)
def test_paths_that_lead_anywhere_else_are_refused(path: str) -> None:
    with pytest.raises(Invalid, match="no path of a policy folder"):
        FolderAdmission().files("mine", {path: GOOD})


def test_documents_of_the_configuration_count_when_it_is_tried_and_are_not_stored() -> None:
    source = FolderAdmission({"most": 5}).files("mine", {name: FILES[name] for name in FILES if name != "data.json"})
    assert source.data == {}


def test_what_was_admitted_is_admitted_again() -> None:
    admission = FolderAdmission()
    source = admission.files("mine", FILES)
    admission.again(source)
    broken = PolicyModule("broken.rego", "package fulcrum.policies.b\n\nallow if {")
    with pytest.raises(Invalid):
        admission.again(PolicySource((*source.modules, broken), source.data, source.name))


def test_a_folder_a_file_and_a_starter_are_sent_as_their_files(tmp_path: Path) -> None:
    for path, text in FILES.items():
        place = tmp_path / "mine" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert policy_files(str(tmp_path / "mine")) == ("mine", FILES)
    name, files = policy_files(str(tmp_path / "mine" / "deep" / "p.rego"))
    assert (name, set(files)) == ("p", {"p.rego", "p_test.rego"})
    name, files = policy_files("read_only")
    admitted = FolderAdmission().files(name, files)
    assert {module.path.split("/")[1] for module in admitted.modules} >= {"read_only"}
    with pytest.raises(Invalid, match="neither a folder nor a starter"):
        policy_files("nowhere")
