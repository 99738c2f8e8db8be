"""`fulcrum policy publish|history|show|restore`: the policies of gateways that were given none of their own."""

import json
from typing import Annotated, Any

import typer

from fulcrum_mcp.cli.options import DataOption, UrlOption
from fulcrum_mcp.cli.output import clean, note, say, say_json, table
from fulcrum_mcp.cli.policy_spoken import Json, Where, spoken
from fulcrum_mcp.cli.policy_view import problem_lines
from fulcrum_mcp.cli.target import open_target

__all__ = ["history", "publish", "restore", "show"]

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="As fulcrum policy history shows it.")]


def publish(where: Where, *, url: UrlOption = None, data: DataOption = None, as_json: Json = False) -> None:
    """Try a folder's policies and their tests, and have gateways judge by them. Exit code 1: not admitted."""
    with spoken(as_json=as_json):
        from fulcrum_mcp.composition.policy import ignored_files, policy_files  # noqa: PLC0415 - loads the engine

        name, files = policy_files(where)
        for line in problem_lines(ignored_files(where)):
            note(line)
        with open_target(url, data, must_exist=False) as target:
            _told(target.publish_policies(name, files), as_json=as_json)


def restore(number: Number, *, url: UrlOption = None, data: DataOption = None, as_json: Json = False) -> None:
    """Make an older revision the newest again."""
    with spoken(as_json=as_json), open_target(url, data) as target:
        _told(target.restore_policies(number), as_json=as_json)


def history(*, url: UrlOption = None, data: DataOption = None, as_json: Json = False) -> None:
    """List what was published, newest first; the first is what counts."""
    with spoken(as_json=as_json):
        with open_target(url, data) as target:
            found = target.list_policies()
        if as_json:
            say_json(found)
            return
        rows = [
            (each["number"], each["published_at"], each["author"], each["digest"][:12]) for each in found["policies"]
        ]
        for line in table(rows, ("NUMBER", "PUBLISHED", "BY", "DIGEST")):
            say(line)
        if not rows:
            note("nothing was published yet; fulcrum policy publish DIR does")
        _overruled(found)


def show(
    number: Annotated[int | None, typer.Argument(metavar="[NUMBER]", min=1, help="Default: the newest.")] = None,
    *,
    url: UrlOption = None,
    data: DataOption = None,
    as_json: Json = False,
) -> None:
    """Print a published revision: its modules and data."""
    with spoken(as_json=as_json):
        with open_target(url, data) as target:
            found = target.show_policies(number)
        if as_json:
            say_json({"policies": found})
            return
        say(
            f"# revision {found['number']}, published {found['published_at']} by {clean(found['author'])},"
            f" digest {found['digest'][:12]}"
        )
        for module in found["modules"]:
            say(f"\n# {clean(module['path'])}")
            for line in module["source"].splitlines():
                say(clean(line.expandtabs(2)))
        if found["data"]:
            say("\n# data")
            for line in json.dumps(found["data"], indent=2).splitlines():
                say(line)


def _told(published: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(published)
        return
    revision = published["policies"]
    was = "is what gateways judge by" if published["made"] else "is the newest already, nothing was changed"
    say(f"revision {revision['number']} ({revision['digest'][:12]}) {was}")
    _overruled(published)


def _overruled(answer: dict[str, Any]) -> None:
    if answer["overruled"]:
        note(f"note: {clean(answer['overruled'])}")
