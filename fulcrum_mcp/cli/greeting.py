"""What `fulcrum up` says: each upstream as it answers or fails, then how to come here; later, whatever changes."""

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from fulcrum_mcp.cli.output import clean, say
from fulcrum_mcp.cli.snippets import snippets

__all__ = ["Upstreams", "count", "say_change", "say_clients", "say_governed", "watch"]

PATIENCE: Final = 10.0
"""Seconds to wait for upstreams before saying which are still silent; the gateway serves meanwhile."""
_LOOK: Final = 0.05
_LOOK_LATER: Final = 1.0


class Upstreams(Protocol):
    """The part of `gateway.catalog.Catalog` that is told."""

    name: str
    failure: str | None

    @property
    def ready(self) -> bool:
        """It has answered."""
        ...

    @property
    def tools(self) -> Mapping[str, object]:
        """By name."""
        ...


def count(number: int, what: str) -> str:
    """`1 tool`, `2 tools`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def say_change(sentence: str) -> None:
    """Something changed while it runs."""
    first, *rest = sentence.split("\n")
    say(f"{time.strftime('%H:%M:%S')}  {clean(first)}")
    for line in rest:
        say(f"          {clean(line)}")


async def watch(catalogs: Sequence[Upstreams], summary: Callable[[], None] | None) -> None:
    """Tell each upstream's first news, then `summary`, then every change of it, for ever; None: the changes only."""
    told = await _first_news(catalogs, aloud=summary is not None)
    if summary is not None:
        summary()
    while True:
        await asyncio.sleep(_LOOK_LATER)
        for catalog in catalogs:
            if told[catalog.name] != _state(catalog):
                told[catalog.name] = _state(catalog)
                say_change(_line(catalog, 0))


async def _first_news(catalogs: Sequence[Upstreams], *, aloud: bool) -> dict[str, str]:
    """Wait for each upstream's first news, not for ever; what is known then, by name."""
    width = max((len(catalog.name) for catalog in catalogs), default=0)
    told: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE
    while len(told) < len(catalogs):
        late = time.monotonic() >= deadline
        for catalog in catalogs:
            if catalog.name not in told and (late or catalog.ready or catalog.failure is not None):
                told[catalog.name] = _state(catalog)
                if aloud:
                    say(f"  {_line(catalog, width)}")
        await asyncio.sleep(0 if late else _LOOK)
    return told


def _state(catalog: Upstreams) -> str:
    return catalog.failure or (count(len(catalog.tools), "tool") if catalog.ready else "")


def _line(catalog: Upstreams, width: int) -> str:
    name = f"{catalog.name:<{width}}"
    if catalog.failure is not None:
        reason = catalog.failure
        for begin in (f'upstream "{catalog.name}": ', f"upstream {catalog.name}: ", f"upstream {catalog.name} at "):
            reason = reason.removeprefix(begin)
        return f"✘ {name}  {clean(reason)}"
    if not catalog.ready:
        return f"… {name}  has not answered yet; its tools come as soon as it does"
    return f"✔ {name}  {count(len(catalog.tools), 'tool')}"


def say_governed(upstreams: Sequence[str], policies: Sequence[str] | None, budgets: int, recovered: int) -> None:
    """What calls come upon at one of several gateways; its log says which upstream does not answer.

    `policies`: None where there are none, empty where they have no names (OPA's). `recovered`: calls that were open.
    """
    if upstreams:
        say(f"  {count(len(upstreams), 'upstream')}: {', '.join(upstreams)}")
    else:
        say("  nothing to govern yet: name a fulcrum.toml, or a client's JSON with mcpServers, with --config")
    if policies is None:
        say("  no policies: every call is denied; fulcrum policy publish DIR brings them, to all gateways")
    else:
        say(f"  policies: {', '.join(policies) or 'those of OPA'}")
    if budgets:
        say(f"  {count(budgets, 'budget')} from the configuration")
    if recovered:
        say(f"  {count(recovered, 'call')} of a process that died: recorded as outcome_unknown")


def say_clients(url: str, key: str | None, key_file: Path, *, anonymous: bool) -> None:
    """How to point a client here. The key is shown on a terminal only."""
    say(f"\nall servers   {url}/mcp\none of them   {url}/servers/NAME/mcp")
    if not anonymous and key is None:
        say(f"\nThe key of {key_file} was revoked: make another with fulcrum keys create NAME, and put it in a client.")
        return
    shown, shell = key, key
    if anonymous:
        shown = shell = None
        say("\nNo key is needed from this machine. Paste into")
    elif sys.stdout.isatty():
        say("\nPaste into")
    else:
        shown, shell = "KEY", f"$(cat {shlex.quote(str(key_file))})"
        say(f"\nPaste into, with the content of {key_file} for KEY")
    for where, text in snippets(url, shown, shell):
        say(f"\n{where}\n  {text}")
