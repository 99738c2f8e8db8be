"""Logging: structured lines on standard error, the same for every process. Never a secret, never an argument."""

import contextlib
import logging
import sys
from collections.abc import Collection, Mapping
from typing import Any

from fulcrum_mcp.errors import Invalid

if "rich" not in sys.modules:
    # structlog loads rich wherever it is installed (0.1 s and 8 MB), to draw tracebacks that we never draw with it.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        del sys.modules["rich"]
else:
    import structlog

__all__ = ["LEVELS", "configure"]

LEVELS = ("debug", "info", "warning", "error")


class _Stderr:
    """Writes lines to the standard error of the moment. A log that cannot be written stops nothing else."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is the one place that logs

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _Forward(logging.Handler):
    """What libraries tell, in the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            told = structlog.get_logger(record.name)
            told.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def configure(
    level: str = "info", *, json: bool | None = None, told: Collection[str] = (), worker: int | None = None
) -> None:
    """Log from `level` on to standard error: lines for people on a terminal, JSON otherwise (or as `json` says).

    `told`: events that the person at the terminal is told in other words. `worker`: its number, in every line. Raises
    `Invalid`.
    """
    if level not in LEVELS:
        raise Invalid(f'--log: "{level}" is not one of {", ".join(LEVELS)}; name one of them')
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)

    def leave_out(_logger: Any, _method: str, event: Any) -> Mapping[str, Any]:
        if event.get("event") in told:
            raise structlog.DropEvent
        known: Mapping[str, Any] = event
        return known

    def number(_logger: Any, _method: str, event: Any) -> Any:
        event.setdefault("worker", worker)
        return event

    structlog.configure(
        processors=[
            *([leave_out] if told else []),
            *([number] if worker is not None else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()])
