from pathlib import Path

import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings, load

JSON = """\
{"mcpServers": {
  "files": {"command": "npx", "args": ["fs"], "cwd": "here"},
  "time": {"command": "uvx"}
}}
"""
TOML = """\
data = "state"
[[server]]
name = "git"
command = ["uvx", "git"]
cwd = "work"
[[budget]]
name = "daily"
scope = "agent"
calls = 5
"""


def read(tmp_path: Path, *texts: tuple[str, str]) -> Settings:
    files: list[Path] = []
    for name, text in texts:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        files.append(file)
    return load(files, environ={"HOME": str(tmp_path)})


def complaint(tmp_path: Path, *texts: tuple[str, str]) -> str:
    with pytest.raises(Invalid) as caught:
        read(tmp_path, *texts)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_clients_json_and_a_toml_make_one_configuration(tmp_path: Path) -> None:
    settings = read(tmp_path, ("a/mcp.json", JSON), ("b/fulcrum.toml", TOML))
    assert {server.name: server.cwd for server in settings.servers} == {
        "files": tmp_path / "a" / "here",
        "time": None,
        "git": tmp_path / "b" / "work",
    }
    assert [budget.name for budget in settings.budgets] == ["daily"]
    assert settings.data == tmp_path / "b" / "state"


def test_lists_of_several_files_follow_one_another_and_keep_their_lines(tmp_path: Path) -> None:
    second = '[[server]]\nname = "x"\ncommand = ["x"]\n[[budget]]\nname = "b"\nscope = "key"\ncalls = 1\n'
    second += 'period = "dayly"\n'
    said = complaint(tmp_path, ("a.toml", TOML), ("b.toml", second))
    assert said.startswith('b.toml:8: budget "b": period "dayly"')


def test_tables_of_several_files_are_united(tmp_path: Path) -> None:
    settings = read(tmp_path, ("a.toml", '[audit]\ninputs = "none"\n'), ("b.toml", '[audit]\ndurability = "os"\n'))
    assert (settings.audit.inputs, settings.audit.durability) == ("none", "os")


def test_two_values_of_one_key_are_refused_with_both_places(tmp_path: Path) -> None:
    assert complaint(tmp_path, ("a.toml", 'http = ":1"\n'), ("b.toml", '\nhttp = ":2"\n')) == (
        'b.toml:2: "http" says something else than a.toml:1; keep one of them'
    )
    assert complaint(tmp_path, ("a.toml", "[limits]\nin_flight = 1\n"), ("b.toml", "[limits]\nin_flight = 2\n")) == (
        'b.toml:2: "limits.in_flight" says something else than a.toml:2; keep one of them'
    )


def test_one_name_for_two_servers_is_refused_and_the_same_server_twice_is_one(tmp_path: Path) -> None:
    other = '{"mcpServers": {"time": {"command": "other"}}}'
    said = complaint(tmp_path, ("a.json", JSON), ("b.json", other))
    assert said == ('b.json:1: server "time" exists already (a.json:3), and differs; give one of them another name')
    again = read(tmp_path, ("a.json", JSON), ("b.json", '{"mcpServers": {"time": {"command": "uvx"}}}'))
    assert [server.name for server in again.servers] == ["files", "time"]


def test_a_budget_of_two_files_needs_two_names(tmp_path: Path) -> None:
    said = complaint(tmp_path, ("a.toml", TOML), ("b.toml", '[[budget]]\nname = "daily"\nscope = "key"\ncalls = 1\n'))
    assert said.startswith('b.toml:2: budget "daily": the name "daily" is taken')


def test_policies_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "b" / "mine").mkdir(parents=True)
    settings = read(tmp_path, ("a/mcp.json", JSON), ("b/fulcrum.toml", 'policies = "mine"\n'))
    assert settings.policies == tmp_path / "b" / "mine"
