import pytest

from fulcrum_adapters.upstream.stdio import StdioConfig
from fulcrum_mcp.errors import Invalid


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        ((), {}, "command is empty"),
        (("",), {}, "command is empty"),
        (("npx", "a\0b"), {}, "NUL"),
        (("npx",), {"A": "x\0"}, "NUL"),
        (("npx",), {"A=B": "x"}, "'A=B' is not the name"),
    ],
)
def test_command_that_cannot_run_is_refused_by_name(
    command: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        StdioConfig(command, environment)


def test_secrets_of_the_gateway_and_shell_functions_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULCRUM_ADMIN_KEY", "flcrm_sk_x")
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("TERM", "() { :; }")
    monkeypatch.setenv("LANG", "C.UTF-8")
    variables = StdioConfig(("npx",), {"TOKEN": "t", "HOME": "/srv"}).variables()
    assert {"FULCRUM_ADMIN_KEY", "DATABASE_URL", "TERM"}.isdisjoint(variables)
    assert (variables["TOKEN"], variables["HOME"], variables["LANG"]) == ("t", "/srv", "C.UTF-8")


def test_repr_hides_the_environment() -> None:
    assert "hunter2" not in repr(StdioConfig(("npx",), {"TOKEN": "hunter2"}))
