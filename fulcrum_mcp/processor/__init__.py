"""The event-processor: consume, store, verify, checkpoint. What several gateways need is in `processor.service`."""

from fulcrum_mcp.processor.intake import Intake
from fulcrum_mcp.processor.processor import Processor, ProcessorConfig

__all__ = ["Intake", "Processor", "ProcessorConfig"]
