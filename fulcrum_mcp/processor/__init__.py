"""The event-processor: consume, store, verify, checkpoint."""

from fulcrum_mcp.processor.intake import Intake
from fulcrum_mcp.processor.leading import LeaderConfig
from fulcrum_mcp.processor.processor import Processor, ProcessorConfig
from fulcrum_mcp.processor.service import EventProcessor, EventProcessorConfig, Figures
from fulcrum_mcp.processor.storing import StorerConfig

__all__ = [
    "EventProcessor",
    "EventProcessorConfig",
    "Figures",
    "Intake",
    "LeaderConfig",
    "Processor",
    "ProcessorConfig",
    "StorerConfig",
]
