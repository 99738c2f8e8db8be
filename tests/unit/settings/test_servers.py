import json
from pathlib import Path
from typing import Any

import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import Settings, load

CLIENTS = """\
{"mcpServers": {
  "files": {"command": "npx", "args": ["-y", "server", "/srv"], "env": {"LEVEL": 3}},
  "github": {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
  "My Server": {"type": "http", "url": "http://127.0.0.1:1/mcp"},
  "off": {"command": "x", "disabled": true}
}}
"""


def read(tmp_path: Path, text: str, name: str = "mcp.json") -> Settings:
    file = tmp_path / name
    file.write_text(text)
    return load(file, environ={"TOKEN": "t0ken"})


def complaint(tmp_path: Path, server: dict[str, Any] | str) -> str:
    text = server if isinstance(server, str) else '{"mcpServers": {\n"a": ' + json.dumps(server, indent=1) + "}}"
    with pytest.raises(Invalid) as caught:
        read(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_clients_configuration_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, CLIENTS)
    assert [server.name for server in settings.servers] == ["files", "github", "my-server"]
    assert settings.servers[0].command == ("npx", "-y", "server", "/srv")
    assert settings.servers[0].env["LEVEL"].get_secret_value() == "3"
    assert settings.servers[1].headers["Authorization"].get_secret_value() == "Bearer t0ken"
    assert [warning.replace(f"{tmp_path}/", "") for warning in settings.warnings] == [
        'mcp.json:4: server "My Server" is called "my-server" here',
        'mcp.json:5: server "off" is disabled; left out',
    ]


def test_editors_json_with_comments_and_trailing_commas_is_read(tmp_path: Path) -> None:
    text = '{\n// mine\n"servers": {"a": {"type": "stdio", "command": "x", /* y */ "args": ["//not", "a,}",],},},\n}'
    assert read(tmp_path, text).servers[0].command == ("x", "//not", "a,}")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"type": "sse", "url": "http://x/sse"}, 'mcp.json:3: server "a": type "sse" is not supported'),
        ({"type": "telnet", "url": "http://x"}, 'mcp.json:3: server "a": type must be "stdio" or "http"'),
        (
            {"comand": "npx"},
            'mcp.json:2: server "a" has neither command nor url; give exactly one of them; did you mean "command"?',
        ),
        ({"command": "x", "url": "http://x/mcp"}, "both command and url"),
        ({"command": ["x"]}, 'mcp.json:3: server "a": command must be a string'),
        ({"command": ""}, "command is empty"),
        ({"command": "x", "args": "y"}, "args must be a list of strings"),
        ({"command": "x", "args": [{}]}, "args must be a string"),
        ({"command": "x", "env": {"A=B": "c"}}, "cannot be a variable's name"),
        ({"command": "x", "headers": {"a": "b"}}, "headers need a url"),
        ({"url": "http://x/mcp", "headers": {"Host": "y"}}, 'header "Host" cannot be set'),
        ({"url": "http://x/mcp", "headers": {"a b": "y"}}, 'header "a b" cannot be set'),
        ({"url": "http://x/mcp", "headers": {"a": "x\r\ny: z"}}, "holds a character that no header may hold"),
        ({"url": "http://x/mcp", "args": ["a"]}, "args need a command"),
        ({"url": 5}, "url must be a string"),
        ({"url": "http://[::1"}, "cannot be read as a URL"),
        ({"url": "javascript:alert(1)"}, "must begin with http"),
        ({"type": "stdio", "url": "http://x"}, 'type "stdio" needs a command'),
        ({"command": "x", "args": ["${input:key}"]}, "${input:key} is not a variable"),
        ({"command": "x", "args": ["${TOKNE}"]}, "${TOKNE} is not set; export TOKNE, or write ${TOKNE:-default}"),
        (
            '{"mcpServers": {"a": {"command": "x"},\n"a": {"command": "y"}}}',
            'mcp.json:2: key "a" appears twice (first in line 1)',
        ),
        ('{"mcpServers": {"a": {"command": "x"},\n"A": {"command": "y"}}}', 'mcp.json:2: server "a" exists already'),
        ('{"mcpServers": {"äöü": {"command": "x"}}}', "cannot be made a name"),
        ('{"mcpServers": []}', 'mcp.json:1: "mcpServers" must be an object'),
        ('{"mcpServers": {"a": 1}}', "must be an object with command or url"),
        ('{"mcpServer": {}}', 'no "mcpServers"'),
        ('{"mcpServers": {\n"a": }}', "mcp.json:2: not valid JSON"),
        ('{"mcpServers": {"a": NaN}}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "must be a JSON object"),
    ],
)
def test_every_mistake_names_line_and_remedy(tmp_path: Path, server: dict[str, Any] | str, said: str) -> None:
    assert said in complaint(tmp_path, server)


def test_unread_keys_are_mentioned_not_refused(tmp_path: Path) -> None:
    settings = read(tmp_path, '{"mcpServers": {"a": {"command": "x", "arg": ["y"], "alwaysAllow": ["z"]}}}')
    assert [warning.rpartition('"a": ')[2] for warning in settings.warnings] == [
        'key "arg" is not read; did you mean "args"?'
    ]


def test_relative_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, '{"mcpServers": {"a": {"command": "x", "cwd": "work"}}}')
    assert settings.servers[0].cwd == tmp_path / "work"
