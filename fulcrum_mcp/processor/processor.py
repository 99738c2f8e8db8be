"""The event-processor inside a gateway's process: one thread, at work only while it leads.

Any number of processes may run one over the same data folder; the others wait to take over. It never touches the hot
path: when the store fails, spools grow and calls go on.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fulcrum_mcp.errors import FulcrumError, Unavailable
from fulcrum_mcp.ports import Leadership
from fulcrum_mcp.processor.intake import Intake

__all__ = ["Processor", "ProcessorConfig"]

_log = structlog.get_logger("fulcrum.processor")


@dataclass(frozen=True, slots=True)
class ProcessorConfig:
    """Seconds, except where it says otherwise."""

    poll: float = 0.2
    checkpoint_every: float = 10.0
    checkpoint_records: int = 4096
    tidy_every: float = 60.0
    retry: float = 1.0
    longest_pass: float = 30.0
    inputs_days: float = 30.0


class Processor:
    """`start` it, `stop` it; `drain` waits until all that was acknowledged before is stored and signed."""

    def __init__(
        self, begin: Callable[[], Intake], leadership: Leadership, config: ProcessorConfig | None = None
    ) -> None:
        self._begin = begin
        self._leadership = leadership
        self._config = config or ProcessorConfig()
        self._intake: Intake | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._work = threading.Lock()
        self._leading = False
        self._blocked: dict[str, str] = {}
        self._signed_at = self._tidied_at = time.monotonic()

    def start(self) -> None:
        """Begin in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fulcrum-processor", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take in and sign what is there, at most for so long, and let go of leadership. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return  # it lets go by itself when its step is over
            self._thread = None
        with self._work:
            self._let_go()

    def drain(self, timeout: float = 10.0) -> bool:
        """True once everything acknowledged before is in the store, by whoever leads; signed if this process does.

        Raises `Unavailable`.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._work:
                if self._lead():
                    self._pass(finish=True, deadline=deadline)
                behind = self._current().behind()
            if not behind or time.monotonic() > deadline:
                return not behind
            time.sleep(0.05)

    def _lead(self) -> bool:
        if not self._leading and self._leadership.acquire():
            self._forget()  # what was known before is not what the last leader left
            self._leading = True
        return self._leading

    def _current(self) -> Intake:
        if self._intake is None:
            self._intake = self._begin()
        return self._intake

    def _forget(self) -> None:
        if self._intake is not None:
            self._intake.close()
            self._intake = None

    def _let_go(self) -> None:
        self._forget()
        self._leadership.release()
        self._leading = False

    def _run(self) -> None:
        pause = self._config.poll
        while not self._stopping.wait(pause):
            pause = self._turn(finish=False)
        self._turn(finish=True)
        with self._work:
            self._let_go()

    def _turn(self, *, finish: bool) -> float:
        """Work if this process leads; the seconds until the next turn."""
        try:
            with self._work:
                if self._lead():
                    self._pass(finish=finish, deadline=time.monotonic() + self._config.longest_pass)
        except Exception as exc:  # noqa: BLE001 - whatever it is, records wait in the spool and the next turn tries anew
            if isinstance(exc, FulcrumError):
                _log.warning("audit.processor.waits", reason=str(exc))
            else:
                _log.exception("audit.processor.failed")
            with self._work:
                self._forget()
            return self._config.retry
        return self._config.poll

    def _pass(self, *, finish: bool, deadline: float) -> None:
        intake = self._current()
        while time.monotonic() < deadline and (faults := intake.step()) is not None:
            for fault in faults:
                _log.error("audit.fault", what=fault)
        if intake.blocked != self._blocked:
            self._blocked = dict(intake.blocked)
            for writer, why in self._blocked.items():
                _log.error("audit.spool.unreadable", writer=writer, reason=why)
        now = time.monotonic()
        config = self._config
        due = now - self._signed_at >= config.checkpoint_every or intake.unsigned >= config.checkpoint_records
        if intake.unsigned and (finish or due):
            intake.sign()
            self._signed_at = now
        every = finish or now - self._tidied_at >= config.tidy_every
        try:
            intake.tidy(int(config.inputs_days * 86_400_000_000), all_writers=every)
        except Unavailable as exc:
            _log.info("audit.tidy.later", reason=str(exc))
        if every:
            self._tidied_at = now
