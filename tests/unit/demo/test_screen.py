import io

from rich.console import Console

from fulcrum_mcp.demo.screen import Screen, record_line, shown_call
from fulcrum_mcp.demo.story import Step


def test_without_a_terminal_each_row_is_one_line() -> None:
    output = io.StringIO()
    with Screen(Console(file=output, width=60)) as screen:
        screen.begin("agent → t")
        screen.end("agent → t", "denied", "reader: no [not markup] " + "x" * 80, 0.42)
    assert output.getvalue().count("\n") == 1
    assert "✘ denied" in output.getvalue()
    assert "0.4 ms" in output.getvalue()
    assert "[not markup]" in output.getvalue()


def test_on_a_terminal_the_table_holds_every_row_in_order() -> None:
    output = io.StringIO()
    with Screen(Console(file=output, force_terminal=True, width=120, height=30)) as screen:
        screen.begin("agent → first")
        screen.end("agent → first", "allowed", "one")
        screen.end("agent → second", "over budget", "two")
    text = output.getvalue()
    last = text[text.rindex("the agent") :]
    assert last.index("first") < last.index("second")
    assert "over budget" in last


def test_call_is_shown_without_the_path_of_the_demo_repository() -> None:
    assert shown_call(Step("git__git_reset", {"repo_path": "/r"}, "hidden")) == "git__git_reset"
    assert shown_call(Step("t", {"a": "ä", "repo_path": "/r"}, "allowed")) == 't {"a":"ä"}'


def test_record_is_shown_as_one_line() -> None:
    data = {"effect": "deny", "server": "git", "tool": "git_commit"}
    assert record_line({"seq": 7, "type": "dev.fulcrum.tool_call.decided", "data": data}) == (
        "   7  tool_call.decided    deny git__git_commit"
    )
