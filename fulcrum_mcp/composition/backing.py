"""What a server stands on: a data folder alone, or the parts of an installation with several gateways."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fulcrum_mcp.api.health import Part
from fulcrum_mcp.composition.audit import open_processor, open_reader
from fulcrum_mcp.composition.control import Usage, open_ledger_usage
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.composition.gateway import DataPlane
from fulcrum_mcp.composition.repositories import Repositories
from fulcrum_mcp.composition.snapshots import OBSERVE
from fulcrum_mcp.composition.stores import Stores
from fulcrum_mcp.ports import AuditReader, ConfigFeed, Metric
from fulcrum_mcp.processor import Processor, ProcessorConfig
from fulcrum_mcp.settings import Settings

__all__ = ["Backing", "Companion", "Processing", "embedded_backing"]

Parts = Mapping[str, Part]


class Companion(Protocol):
    """Something that works beside the data plane as long as it lives."""

    def start(self) -> None:
        """Begin, on the event loop, before the server is ready."""
        ...

    async def close(self) -> None:
        """End, after the data plane has ended. Idempotent."""
        ...


@dataclass(slots=True)
class Backing:
    """Opened. None stands for what belongs to the data folder."""

    repositories: Repositories | None
    stores: Stores | None
    usage: Usage
    """`BudgetLedger.usage`, from any thread."""
    open_reader: Callable[[], AuditReader]
    """The audit trail, for one question."""
    drain: Callable[[], bool]
    """Have everything acknowledged before stored; False when that is not so yet. On a thread."""
    companions: Callable[[DataPlane], Sequence[Companion]]
    """To be made once there is a data plane."""
    feed: ConfigFeed | None = None
    """News of changes; see `Follower`."""
    feed_fault: Callable[[], str | None] | None = None
    otherwise: str | None = OBSERVE
    """The starter policy where there are none; None: then every call is denied."""
    parts: Callable[[], Parts] = dict
    metrics: Callable[[], Sequence[Metric]] = tuple
    close: Callable[[], None] = field(default=lambda: None)
    """What neither the data plane nor the control plane closes."""


class Processing:
    """The embedded processor as a companion."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def start(self) -> None:
        """See `Companion`."""
        self.processor.start()

    async def close(self) -> None:
        """See `Companion`."""
        await asyncio.to_thread(self.processor.stop)


def embedded_backing(settings: Settings) -> Backing:
    """A data folder, with the processor in this process. Raises `Invalid`, `Unavailable`."""
    folder = open_folder(settings.data)
    usage, close_usage = open_ledger_usage(folder)
    processor = open_processor(folder, ProcessorConfig(inputs_days=settings.audit.inputs_days))
    return Backing(
        repositories=None,
        stores=None,
        usage=usage,
        open_reader=lambda: open_reader(folder),
        drain=processor.drain,
        companions=lambda _: [Processing(processor)],
        close=close_usage,
    )
