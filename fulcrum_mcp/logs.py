"""Logging: structured lines on standard error, the same for every process. Never a secret, never an argument."""

import logging
import sys
from typing import Any

import structlog

__all__ = ["configure"]


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Log from `level` on to standard error: lines for people on a terminal, JSON otherwise (or as `json` says)."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
