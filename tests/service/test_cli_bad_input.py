"""Whatever is wrong on the command line, in a file or in the environment: one message with place and remedy.

Every case: exit code 2 (used wrongly) or 3 (something needed is not there), never a traceback or a nameless fault, and
the data folder stays as it was, byte for byte.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import conftest_cli
import pytest
from conftest_cli import Run

from fulcrum_mcp.composition import server

pytestmark = pytest.mark.service
run = conftest_cli.run

BINARY = bytes(range(256)) * 20
HUGE = b"#" * (5 << 20)
SECRET = "canary-secret-0123456789-0123456789"
UP = ("up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
FILES: dict[str, bytes] = {
    "binary": BINARY,
    "binary.toml": BINARY,
    "binary.json": BINARY,
    "binary.rego": BINARY,
    "huge.toml": HUGE,
    "huge.json": b'{"a":"' + HUGE + b'"}',
    "huge.rego": HUGE,
    "deep.json": b"[" * 200_000,
    "empty.json": b"",
    "broken.json": b'{"mcpServers": {\n',
    "list.json": b'{"mcpServers": [1]}',
    "none.json": b'{"x": 1}',
    "twice.json": b'{"mcpServers": {"a": {"command": "x"},\n"a": {"command": "y"}}}',
    "both.json": b'{"mcpServers": {\n"a": {"command": "x", "url": "http://x"}}}',
    "neither.json": b'{"mcpServers": {\n"a": {"comand": "x"}}}',
    "sse.json": b'{"mcpServers": {"a": {"type": "sse", "url": "http://x/y"}}}',
    "variable.json": b'{"mcpServers": {"a": {"command": "x", "env": {"T": "${NOPE_NOPE}"}}}}',
    "password.json": b'{"mcpServers": {"a": {"url": "http://me:' + SECRET.encode() + b'@x/y"}}}',
    "header.json": b'{"mcpServers": {"a": {"url": "http://x/y", "headers": {"Host": "' + SECRET.encode() + b'"}}}}',
    "broken.toml": b"a = \n",
    "typo.toml": b'[[server]]\nname = "x"\ncomand = ["a"]\n',
    "name.toml": b'[[server]]\nname = "A__b"\ncommand = ["a"]\n',
    "period.toml": b'[[budget]]\nname = "daily"\nscope = "agent"\ncalls = 1\nperiod = "dayly"\n',
    "rate.toml": b'[[rate]]\nscope = "agent"\nlimit = "10"\n',
    "wrong.toml": b"[limits]\nin_flight = -1\n",
    "first.toml": b'http = "127.0.0.1:1"\n',
    "second.toml": b'\nhttp = "127.0.0.1:2"\n',
    "broken.rego": b"package fulcrum.policies.broken\n\nallow if {\n",
    "typo.rego": b"package fulcrum.policies.typo\nimport rego.v1\nallow if startwith(input.method, `x`)\n",
    "file": b"x\n",
    "key": b"not a key\n",
}


class Case(NamedTuple):
    argv: tuple[str, ...]
    code: int
    said: tuple[str, ...]
    """Each is part of the message: the place, then the remedy."""
    environ: tuple[tuple[str, str], ...] = ()


def c(line: str, code: int, *said: str, **environ: str) -> Case:
    return Case(tuple(line.split()), code, said, tuple(environ.items()))


CONFIGURATION = [
    c("--config absent.json", 2, "absent.json: no such file", "check the path"),
    c("--config .", 2, ".: cannot be read", "check the path"),
    c("--config binary", 2, "binary:2: not UTF-8", "save the file as UTF-8"),
    c("--config binary.toml", 2, "binary.toml:2", "UTF-8"),
    c("--config binary.json", 2, "binary.json:2", "UTF-8"),
    c("--config huge.toml", 2, "huge.toml: larger than 4 MiB"),
    c("--config huge.json", 2, "huge.json: larger than 4 MiB"),
    c("--config deep.json", 2, "deep.json: nested too deeply"),
    c("--config empty.json", 2, "empty.json:1: not valid JSON", "correct"),
    c("--config broken.json", 2, "broken.json:2: not valid JSON", "correct"),
    c("--config list.json", 2, "list.json:1", "must be an object of servers"),
    c("--config none.json", 2, 'none.json: no "mcpServers"', "name a client's"),
    c("--config twice.json", 2, 'twice.json:2: key "a" appears twice', "remove one"),
    c("--config both.json", 2, 'both.json:2: server "a" has both', "exactly one"),
    c("--config neither.json", 2, "neither.json:2", 'did you mean "command"?'),
    c("--config sse.json", 2, 'sse.json:1: server "a"', "Streamable HTTP"),
    c("--config variable.json", 2, "variable.json:1", "export NOPE_NOPE"),
    c("--config password.json", 2, "password.json:1", "put it in headers"),
    c("--config header.json", 2, 'header.json:1: server "a": header "Host"', "remove it"),
    c("--config broken.toml", 2, "broken.toml:1: not valid TOML", "correct this line"),
    c("--config typo.toml", 2, 'typo.toml:3: server "x": unknown key "comand"', 'did you mean "command"?'),
    c("--config name.toml", 2, 'name.toml:2: server "A__b"', "rename it"),
    c("--config period.toml", 2, 'period.toml:5: budget "daily": period "dayly"', 'Did you mean "day"?'),
    c("--config rate.toml", 2, 'rate.toml:3: rate 1: rate "10"', "write N/PERIOD"),
    c("--config wrong.toml", 2, "wrong.toml:2: [limits] in_flight", "must be greater"),
    c("--config first.toml --config second.toml", 2, "second.toml:2", "first.toml:1", "keep one"),
    c("--policies absent", 2, "absent: neither a folder nor a starter", "there are allow_all"),
    c("--policies ./absent", 2, "--policies: absent does not exist", "name a folder"),
    c("--policies allow_al", 2, "allow_al", "did you mean allow_all?"),
    c("--policies broken.rego", 2, "broken.rego:"),
    c("--policies typo.rego", 2, "typo.rego:3", "did you mean startswith?"),
    c("--policies binary.rego", 2, "binary.rego: not UTF-8", "save it"),
    c("--policies huge.rego", 2, "huge.rego: larger", "split it"),
    c("--policies empty", 2, "empty: no policy in it", "add a .rego file"),
    c("--policies file", 2, "file: no policy in it", "add a .rego file"),
    c("--http nonsense", 2, '--http: "nonsense" is not HOST:PORT', "write for example"),
    c("--http 127.0.0.1:70000", 2, "--http", "write for example"),
    c("--http ::1:80", 2, "--http", "in brackets"),
    c("--http 0.0.0.0:0 --anonymous r", 2, "--anonymous", "listen on 127.0.0.1"),
    c("--anonymous a/b", 2, '--anonymous: "a/b" is not a role', "one word"),
    c("--log loud", 2, '--log: "loud"', "name one of them"),
    c("--data file", 2, "--data: file is a file", "name a folder"),
    c("--nonsense", 2, "--nonsense", "--help"),
    c("surplus", 2, "surplus", "--help"),
    c("--config", 2, "--config", "requires an argument"),
    c("", 2, "FULCRUM_ADMIN_KEY: too weak", "openssl rand", FULCRUM_ADMIN_KEY="short"),
    c("", 2, "FULCRUM_ADMIN_KEY_FILE: absent", "check the path", FULCRUM_ADMIN_KEY_FILE="absent"),
    c("", 2, "FULCRUM_ADMIN_KEY_FILE: binary is not UTF-8", "plain text", FULCRUM_ADMIN_KEY_FILE="binary"),
    c("", 2, "FULCRUM_STATE_KEYS", "make new ones", FULCRUM_STATE_KEYS="x"),
    c("", 2, "FULCRUM_LIMITS_IN_FLIGHT: must be a whole number", FULCRUM_LIMITS_IN_FLIGHT="x"),
    c("", 2, "FULCRUM_AUDIT_INPUTS", "must be", FULCRUM_AUDIT_INPUTS="x"),
]
COMMANDS = [
    c("", 2, "Usage: fulcrum COMMAND"),
    c("adit", 2, 'no command "adit"', 'did you mean "fulcrum audit"?'),
    c("wrap", 2, "COMMAND", "--help"),
    c("wrap -- no-such-program-at-all", 3, "no-such-program-at-all", "install it"),
    c("wrap --config broken.toml -- true", 2, "broken.toml:1", "correct"),
    c("wrap --policies absent -- true", 2, "absent", "there are allow_all"),
    c("keys create", 2, "name", "--help"),
    c("keys create x --scope nope", 2, 'scopes: "nope"', "tool:call"),
    c("keys create x --scope tool:cal", 2, 'Did you mean "tool:call"?'),
    c("keys create x --expires soon", 2, '--expires: "soon"', "write for example"),
    c("keys create x --expires 0", 2, "expires_in", "leave it out"),
    c("keys create x --role a\x1b", 2, "roles", "write another"),
    c("keys create x --agent \udcff", 2, "argument 4", "UTF-8"),
    c("keys list --data absent", 3, "absent: no Fulcrum has used", "start fulcrum up"),
    c("keys list --url nonsense", 2, '--url: "nonsense"', "write for example", FULCRUM_API_KEY="x"),
    c("keys list --url http://127.0.0.1:9", 3, "does not answer", "is a gateway running there?", FULCRUM_API_KEY="x"),
    c("keys list --url http://127.0.0.1:9", 2, "--url needs a key", "set FULCRUM_API_KEY"),
    c("keys list --url http://127.0.0.1:9", 2, "FULCRUM_API_KEY_FILE: absent", "check", FULCRUM_API_KEY_FILE="absent"),
    c("keys list --url http://127.0.0.1:9", 2, "FULCRUM_API_KEY:", "the key alone", FULCRUM_API_KEY="a\nb"),
    c("keys list", 2, '--url: "junk"', "write for example", FULCRUM_URL="junk", FULCRUM_API_KEY="x"),
    c("keys list --url http://x --data y", 2, "both given"),
    c("budget create --calls 1", 2, "--scope", "--help"),
    c("budget create --scope agent", 2, "no limit is given", "add calls"),
    c("budget create --scope agnt --calls 1", 2, 'scope "agnt"', 'Did you mean "agent"?'),
    c("budget create --scope agent --calls -1", 2, 'calls "-1"', "whole number"),
    c("budget create --scope agent --calls 1e400", 2, 'calls "1e400"', "whole number"),
    c("budget create --scope agent --calls 9999999999999999999999", 2, "too large", "the most is"),
    c("budget create --scope agent --usd 0.00000001", 2, "finer than a millionth", "6 decimals"),
    c("budget create --scope agent --calls 1 --period dayly", 2, 'period "dayly"', 'Did you mean "day"?'),
    c("budget create --scope agent --calls 1 --action hrad", 2, 'action "hrad"', 'Did you mean "hard"?'),
    c("budget create --scope agent --calls 1 --timezone Mars", 2, 'timezone "Mars"', "IANA"),
    c("budget create --scope agent --calls 1 --threshold x", 2, 'threshold "x"', "whole number"),
    c("budget create --scope agent --rate 10", 2, 'rate "10"', "write N/PERIOD"),
    c("budget create --scope agent --rate 0/minute", 2, 'rate "0/minute"', "calls = 0"),
    c("budget list --config broken.toml", 2, "broken.toml:1", "correct"),
    c("audit query --since yesterday", 2, '--since "yesterday"', "RFC 3339"),
    c("audit query --effect maybe", 2, '--effect "maybe"', "require_approval"),
    c("audit query --limit 0", 2, "--limit", "greater than or equal to 1"),
    c("audit query --tool \udcff", 2, "argument 3", "UTF-8"),
    c("audit query --data absent", 3, "absent: nothing is recorded here", "start `fulcrum up`"),
    c("audit tail --no-follow --data absent", 3, "absent: nothing is recorded here", "start"),
    c("audit export", 2, "--output", "--help"),
    c("audit export -o .", 2, "-o .: is a folder", "name a file"),
    c("audit export -o absent/x", 2, "-o absent/x", "name another file"),
    c("audit verify absent --public-key binary", 2, "binary is not a public key", "keys/audit.pub"),
    c("audit verify binary", 2, "--public-key", "--help"),
    c("policy check absent", 2, "absent", "there are allow_all"),
    c("policy check binary.rego", 2, "binary.rego", "save it"),
    c("policy test absent", 2, "absent", "there are allow_all"),
    c("policy eval", 2, "--policies", "--help"),
    c("policy eval --policies observe --input absent", 2, "--input absent", "name a file"),
    c("policy eval --policies observe --input binary", 2, "--input binary: not UTF-8", "name a file"),
    c("policy eval --policies observe --input .", 2, "--input .", "name a file"),
    c("policy eval --policies observe --input deep.json", 2, "--input", "give one"),
    c("policy explain", 2, "explain: give a decision's id", "--input"),
    c("policy explain --input none.json", 2, "explain: --input needs --policies"),
    c("policy explain dec_x --data absent", 3, "absent: nothing is recorded here", "start"),
    c("policy check observe --tools list.json", 2, "list.json", "tools with names"),
    c("policy check observe --config typo.toml", 2, "typo.toml:3", 'did you mean "command"?'),
    c("servers list", 2, "--config is missing", "name a fulcrum.toml"),
    c("servers list --config absent", 2, "absent: no such file", "check"),
    c("demo --nope", 2, "--nope", "--help"),
]
FORMS = ("fulcrum ", "fulcrum: ", "warning: ")
"""How a line to standard error begins."""
CASES = [case._replace(argv=(*UP, *case.argv)) for case in CONFIGURATION] + COMMANDS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    return folder


def state(folder: Path) -> dict[str, str]:
    """Every file of the data folder; SQLite's own bookkeeping for readers is not data."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal", ".lock"))
    }


@pytest.fixture
def used(run: Run, tmp_path: Path) -> Path:
    """A data folder with a key and a budget in it."""
    assert run("keys", "create", "somebody").code == 0
    assert run("budget", "create", "--scope", "agent", "--calls", "5").code == 0
    assert run("audit", "query", "--type", "all").code == 0
    return tmp_path / "data"


@pytest.fixture
def bad(files: Path, used: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def started(_: int) -> None:
        raise RuntimeError("the gateway started, and should not have")

    monkeypatch.setattr(server, "calm_collector", started)  # else a case that is no fault would wait for ever
    monkeypatch.chdir(files)
    return used


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.argv).encode("ascii", "replace").decode() or "-")
def test_what_is_wrong_is_said_with_place_and_remedy_and_changes_nothing(
    case: Case, bad: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in case.environ:
        monkeypatch.setenv(name, value)
    before = state(bad)
    ran = run(*case.argv)
    said = ran.out + ran.err
    assert ran.code == case.code, said
    for part in case.said:
        assert part in said
    if case.argv:  # without any, what there is stands there
        assert [line for line in ran.err.splitlines() if not line.startswith(FORMS)] == []
    assert "Traceback" not in said
    assert "something went wrong" not in said
    assert SECRET not in said
    assert state(bad) == before


Damage = Callable[[Path], None]


def _key(folder: Path) -> None:
    (folder / "admin.key").write_text("junk")


def _database(folder: Path) -> None:
    for path in folder.glob("fulcrum.db*"):
        path.unlink()
    (folder / "fulcrum.db").write_bytes(BINARY)


def _open(folder: Path) -> None:
    folder.chmod(0o777)


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (_key, 2, "admin.key: holds no key; remove it"),
        (_database, 3, "fulcrum.db: file is not a database"),
        (_open, 2, "others may write to it; run: chmod 700"),
    ],
)
def test_a_damaged_data_folder_is_said_and_not_repaired_by_force(
    bad: Path, run: Run, damage: Damage, code: int, said: str
) -> None:
    damage(bad)
    kept = {name: text for name, text in state(bad).items() if name.startswith(("admin", "fulcrum", "ledger"))}
    ran = run(*UP)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert kept.items() <= state(bad).items()


def test_a_port_that_is_taken_is_said(bad: Path, run: Run) -> None:
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run("up", "--http", f"127.0.0.1:{port}")
    assert ran.code == 3
    assert f"127.0.0.1:{port}: cannot listen there" in ran.err
    assert "name another with --http" in ran.err
    assert run("audit", "export", "-o", str(bad.parent / "trail")).code == 0
