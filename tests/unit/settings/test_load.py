from collections.abc import Mapping
from pathlib import Path

import pytest

from fulcrum_mcp.core.budget import Rate, Scope
from fulcrum_mcp.core.written import BUDGET_KEYS
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings import (
    AuditSettings,
    LimitsSettings,
    NatsSettings,
    OAuthSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    load,
)
from fulcrum_mcp.settings.environment import _VARIABLES, SECRETS
from fulcrum_mcp.settings.file import FileSettings, PolicyEntry, ServerEntry, TelemetryEntry

GOOD = """\
data = "state"
http = ":9090"

[[server]]
name = "files"
command = ["npx", "-y", "server", "${ROOT:-/srv}"]
env = { TOKEN = "${SECRET_TOKEN}" }
labels = { zone = "inside" }

[[server]]
name = "web"
url = "https://mcp.example.com/mcp"
[server.headers]
Authorization = "Bearer ${SECRET_TOKEN}"

[[budget]]
name = "a dollar a day each"
scope = "agent"
usd = 1.00
period = "day"
action = "hard"

[[rate]]
scope = "tool:files__write_file"
limit = "10/minute:3"

[audit]
durability = "os"
"""
SECRET = "s3cr3t-canary-0123456789"


def read(tmp_path: Path, text: str, name: str = "fulcrum.toml", **environ: str) -> Settings:
    file = tmp_path / name
    file.write_text(text)
    return load(file, environ={"SECRET_TOKEN": SECRET, "HOME": str(tmp_path), **environ})


def complaint(tmp_path: Path, text: str, name: str = "fulcrum.toml", **environ: str) -> str:
    with pytest.raises(Invalid) as caught:
        read(tmp_path, text, name, **environ)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD)
    files, web = settings.servers
    assert files.command == ("npx", "-y", "server", "/srv")
    assert files.shown == "npx -y server ${ROOT:-/srv}"
    assert files.env["TOKEN"].get_secret_value() == SECRET
    assert files.labels == {"zone": "inside"}
    assert web.headers["Authorization"].get_secret_value() == f"Bearer {SECRET}"
    assert web.origin.endswith("fulcrum.toml:10")
    dollar, rate = settings.budgets
    assert (dollar.limits, dollar.scope, dollar.tenant) == ({"usd_micros": 1_000_000}, Scope("agent"), "default")
    assert (rate.rate, rate.scope) == (Rate(10, 60, 3), Scope("tool", "files__write_file"))
    assert settings.audit.durability == "os"
    assert str(settings.http) == "127.0.0.1:9090"
    assert settings.data == tmp_path / "state"


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD, FULCRUM_ADMIN_KEY="0123456789abcdefghijklmnopqrstuvwxyz")
    assert SECRET not in repr(settings) + str(settings)
    assert "0123456789abcdef" not in repr(settings)


def test_budget_ids_follow_from_names_and_outlive_a_restart(tmp_path: Path) -> None:
    first = read(tmp_path, GOOD)
    second = read(tmp_path, GOOD.replace("usd = 1.00", "usd = 2.00"))
    assert [budget.id for budget in first.budgets] == [budget.id for budget in second.budgets]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"day"',
            '"dayly"',
            'fulcrum.toml:20: budget "a dollar a day each": period "dayly" is not one of minute, hour',
        ),
        ("usd = 1.00", "usd = -1", 'fulcrum.toml:19: budget "a dollar a day each": usd "-1" must be zero or more'),
        (
            "usd = 1.00",
            "usdd = 1",
            'fulcrum.toml:19: budget "a dollar a day each": unknown key "usdd"; did you mean "usd"?',
        ),
        ('"hard"', '"heavy"', 'fulcrum.toml:21: budget "a dollar a day each": action "heavy" is not one of'),
        ('scope = "agent"', 'scope = "agnet"', "fulcrum.toml:18: "),
        ("10/minute:3", "10/fortnight", 'fulcrum.toml:25: rate 1: rate "10/fortnight"'),
        ('limit = "10', 'limits = "10', 'fulcrum.toml:25: rate 1: unknown key "limits"; did you mean "limit"?'),
        (
            'durability = "os"',
            'durability = "never"',
            "fulcrum.toml:28: [audit] durability: must be 'sync', 'os' or 'stream'",
        ),
        (
            'durability = "os"',
            "durabilty = 1",
            'fulcrum.toml:28: [audit] unknown key "durabilty"; did you mean "durability"?',
        ),
        ('name = "web"', 'name = "files"', 'server "files" exists already'),
        ('name = "web"', 'name = "we__b"', 'fulcrum.toml:11: server "we__b": a name is'),
        ('name = "web"', 'nam = "web"', 'unknown key "nam"; did you mean "name"?'),
        ('url = "https://mcp', 'url = "ftp://mcp', 'fulcrum.toml:12: server "web": url must begin with'),
        ('url = "https://mcp', 'url = "https://u:p@mcp', "must not hold a password"),
        ("${SECRET_TOKEN}", "${NOT_THERE}", 'server "files": ${NOT_THERE} is not set; export NOT_THERE'),
        (
            'command = ["npx", ',
            'command = [1, "npx", ',
            'fulcrum.toml:6: server "files": command.0: must be a valid string',
        ),
        ("[audit]", "[audti]", 'fulcrum.toml:27: unknown key "audti"; did you mean "audit"?'),
        ('http = ":9090"', 'http = "nine"', 'fulcrum.toml:2: "nine" is not HOST:PORT'),
        ('http = ":9090"', 'http = ":99999"', "fulcrum.toml:2: "),
        ('http = ":9090"', "http = ", "fulcrum.toml:2: not valid TOML: "),
        ('http = ":9090"', "data = 1", "fulcrum.toml:2: not valid TOML: cannot overwrite a value"),
    ],
)
def test_every_mistake_names_line_and_remedy(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert said in complaint(tmp_path, GOOD.replace(old, new, 1))


def test_all_shape_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = complaint(tmp_path, GOOD.replace("[audit]", "[audit]\ncolour = 1\nsize = 2")).splitlines()
    assert [line.split(":")[1] for line in lines] == ["28", "29"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = [[[", b"\x00", b'a = "' + b"x" * 10, b"[" * 20_000, b"a = " + b"[" * 5000]
)
def test_garbage_is_refused_with_a_place(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fulcrum.toml"
    file.write_bytes(content)
    with pytest.raises(Invalid, match=r"fulcrum\.toml"):
        load(file, environ={})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no such file; check the path given with --config"):
        load(tmp_path / "none.toml", environ={})
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path, environ={})


def test_environment_wins_over_file_and_options_over_environment(tmp_path: Path) -> None:
    file = tmp_path / "fulcrum.toml"
    file.write_text('http = "127.0.0.1:1"\n[limits]\nmax_depth = 7\n')
    environ = {"FULCRUM_HTTP": "127.0.0.1:2", "FULCRUM_LIMITS_MAX_REQUEST": "1024", "PORT": "4"}
    settings = load(file, environ=environ, overrides={"grpc": "127.0.0.1:3", "data": None})
    assert (settings.http.port, settings.grpc.port) == (2, 3)
    assert (settings.limits.max_depth, settings.limits.max_request) == (7, 1024)
    assert load(file, environ=environ, overrides={"http": "[::1]:5"}).http.host == "::1"


def test_port_of_the_platform_is_used_when_nothing_else_is_said() -> None:
    assert str(load(None, environ={"PORT": "4321"}).http) == "127.0.0.1:4321"
    assert str(load(None, environ={"PORT": "4321"}, port_host="0.0.0.0").http) == "0.0.0.0:4321"
    said = {"PORT": "4321", "FULCRUM_HTTP": "127.0.0.1:1"}
    assert str(load(None, environ=said, port_host="0.0.0.0").http) == "127.0.0.1:1"
    with pytest.raises(Invalid, match="only possible on loopback"):
        load(None, environ={"PORT": "4321", "FULCRUM_ANONYMOUS": "dev"}, port_host="0.0.0.0")
    assert str(load(None, environ={}).http) == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PORT": "http"}, 'PORT: "127.0.0.1:http" is not HOST:PORT'),
        ({"FULCRUM_LIMITS_MAX_DEPTH": "deep"}, "FULCRUM_LIMITS_MAX_DEPTH: must be a whole number"),
        ({"FULCRUM_LIMITS_MAX_DEPTH": "0"}, "FULCRUM_LIMITS_MAX_DEPTH: [limits] max_depth: must be greater than"),
        ({"FULCRUM_DENY_AS": "shout"}, "FULCRUM_DENY_AS: deny_as: must be 'result' or 'error'"),
        ({"FULCRUM_ADMIN_KEY": "changeme"}, "FULCRUM_ADMIN_KEY: too weak"),
        ({"FULCRUM_ADMIN_KEY": "a" * 64}, "FULCRUM_ADMIN_KEY: too weak"),
        ({"FULCRUM_STATE_KEYS": "short"}, "FULCRUM_STATE_KEYS: each key needs at least 32"),
        ({"FULCRUM_ADMIN_KEY_FILE": "/nonexistent/key"}, "FULCRUM_ADMIN_KEY_FILE: /nonexistent/key cannot be read"),
        ({"FULCRUM_DATA": "x", "FULCRUM_DATA_FILE": "y"}, "both FULCRUM_DATA and FULCRUM_DATA_FILE are set"),
        ({"FULCRUM_POLICIES": "/nonexistent/policies"}, "FULCRUM_POLICIES: /nonexistent/policies does not exist"),
        ({"FULCRUM_POLICY_ENGINE": "opa"}, 'FULCRUM_POLICY_ENGINE: engine "opa" needs opa_url'),
        ({"FULCRUM_ANONYMOUS": "two words"}, 'FULCRUM_ANONYMOUS: "two words" is not a role'),
        ({"FULCRUM_ANONYMOUS": "reader", "FULCRUM_HTTP": "0.0.0.0:80"}, "only possible on loopback"),
        ({"FULCRUM_OAUTH_ISSUER": "https://a"}, 'key "resource" is missing'),
    ],
)
def test_environment_mistakes_name_the_variable(environ: Mapping[str, str], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        load(None, environ=environ)
    assert said in str(caught.value)


def test_secret_files_are_read_without_their_line_break(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdefghijklmnopqrstuvwxyz\n")
    settings = load(None, environ={"FULCRUM_ADMIN_KEY_FILE": str(file)})
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "0123456789abcdefghijklmnopqrstuvwxyz"
    file.write_text("")
    with pytest.raises(Invalid, match="is empty"):
        load(None, environ={"FULCRUM_ADMIN_KEY_FILE": str(file)})


def test_unknown_variables_of_ours_are_mentioned() -> None:
    settings = load(None, environ={"FULCRUM_POLICYS": "x", "OTHER": "y"})
    assert settings.warnings == ('FULCRUM_POLICYS: no such setting; did you mean "FULCRUM_POLICIES"?',)


def test_shared_secret_algorithms_are_never_accepted(tmp_path: Path) -> None:
    text = '[oauth]\nissuer = "https://i.example"\nresource = "https://g.example"\njwks_url = "https://i.example/k"\nalgorithms = ["HS256"]\n'  # noqa: E501 (one case a line)
    assert 'fulcrum.toml:5: [oauth] algorithm "HS256" is not one of' in complaint(tmp_path, text)
    assert "jwks_url is not a https URL" in complaint(
        tmp_path, text.replace("https://i.example/k", "http://i.example/k")
    )


def test_an_option_that_does_not_exist_is_our_own_mistake() -> None:
    with pytest.raises(TypeError):
        load(None, environ={}, overrides={"htp": "x"})


def test_data_defaults_to_the_users_data_folder() -> None:
    assert load(None, environ={"XDG_DATA_HOME": "/x", "HOME": "/h"}).data == Path("/x/fulcrum")
    assert load(None, environ={"XDG_DATA_HOME": "relative", "HOME": "/h"}).data == Path("/h/.local/share/fulcrum")


def test_policies_are_a_path_that_exists_or_a_starters_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    file = tmp_path / "fulcrum.toml"
    file.write_text('policies = "mine"\n')
    assert load(file, environ={}).policies == tmp_path / "mine"
    assert load(None, environ={}, overrides={"policies": "allow_all"}).policies == "allow_all"
    file.write_text('policies = "./yours"\n')
    with pytest.raises(Invalid, match=r"fulcrum.toml:1: .*yours does not exist; name a folder"):
        load(file, environ={})


REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def test_the_reference_names_every_key_and_variable_and_its_example_is_valid(tmp_path: Path) -> None:
    text = REFERENCE.read_text()
    example = text.split("```toml\n")[1].split("```")[0]
    for name in (*_VARIABLES, *SECRETS):
        assert f"`{name}`" in text
    models = (
        FileSettings,
        ServerEntry,
        AuditSettings,
        PolicyEntry,
        LimitsSettings,
        OAuthSettings,
        PostgresSettings,
        RedisSettings,
        NatsSettings,
        TelemetryEntry,
    )
    keys = {key for model in models for key in model.model_fields} | set(BUDGET_KEYS)
    assert {key for key in keys if key not in example} == set()
    (tmp_path / "policies").mkdir()
    (tmp_path / "data.json").write_text('{"owners": ["ana"]}')
    settings = read(tmp_path, example, GITHUB_TOKEN="t")
    assert [server.name for server in settings.servers] == ["files", "github"]
    assert settings.policy.data == {"owners": ["ana"]}
    assert (settings.audit, settings.limits) == (AuditSettings(), LimitsSettings())
