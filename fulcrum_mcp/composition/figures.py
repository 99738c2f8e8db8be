"""The figures of all workers of this host in one answer: whoever is asked asks its siblings, over their own sockets.

Each series says which worker it is of. One that does not answer in time is left out; it is never waited for longer than
a scrape may take.
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import msgspec

from fulcrum_mcp.api.mcp.writer import Receive, Send, send_body
from fulcrum_mcp.api.siblings import App, Siblings
from fulcrum_mcp.ports import Metric

__all__ = ["Figures", "merged"]

_PATH: Final = "/figures"
"""On the siblings' sockets only."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Metric]).decode


class Figures:
    """Of one process, or of one of several workers."""

    def __init__(self, own: Callable[[], Sequence[Metric]], siblings: Siblings | None) -> None:
        self.own = own
        """Of this process alone; each sends its own to a collector."""
        self._siblings = siblings

    async def read(self) -> Sequence[Metric]:
        """Every figure; of several workers each with the label `worker`."""
        siblings = self._siblings
        if siblings is None:
            return self.own()
        answers = await asyncio.gather(*(siblings.ask(number, _PATH) for number in siblings.others))
        told = {number: _understood(said) for number, said in zip(siblings.others, answers, strict=True)}
        told[siblings.seat.number] = self.own()
        return merged({number: told[number] for number in sorted(told)})

    def beside(self, app: App) -> App:
        """What siblings reach: `app`, and this process's own figures."""

        async def reached(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["path"] == _PATH:
                await send_body(send, 200, _encode(self.own()), [])
            else:
                await app(scope, receive, send)

        return reached


def merged(told: Mapping[int, Sequence[Metric]]) -> list[Metric]:
    """Families by name, in the order in which they come first."""
    families: dict[str, Metric] = {}
    for number, metrics in told.items():
        for metric in metrics:
            points = [each._replace(labels={**each.labels, "worker": str(number)}) for each in metric.points]
            known = families.get(metric.name, metric._replace(points=()))
            families[metric.name] = known._replace(points=[*known.points, *points])
    return list(families.values())


def _understood(said: bytes | None) -> Sequence[Metric]:
    """Nothing of a worker that does not answer; one of another version says something else for a moment."""
    try:
        return () if said is None else _decode(said)
    except msgspec.MsgspecError:
        return ()
