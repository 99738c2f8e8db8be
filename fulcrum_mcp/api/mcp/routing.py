"""Which worker of this host a request belongs to: the one that keeps its session, its waiting call or its task.

A stdio server that speaks 2026-07-28 is one process for all clients, and what they tell it must reach the same one:
it runs in the first worker, and so do the lists and streams that several servers give together.
"""

from collections.abc import Collection, Iterator
from typing import Final

from fulcrum_mcp.api.mcp.head import Head
from fulcrum_mcp.api.mcp.writer import Receive, Send, send_body
from fulcrum_mcp.api.siblings import RELAYED, Relayed, SiblingLost, Siblings, SiblingSilent
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.naming import split_name
from fulcrum_mcp.gateway.relay import UPSTREAM_FAILED
from fulcrum_mcp.gateway.rounds import Rounds
from fulcrum_mcp.gateway.sessions import Sessions
from fulcrum_mcp.gateway.tasks import TASK_METHODS, Tasks
from fulcrum_mcp.gateway.wire import Message, error_message

__all__ = ["Routing"]

_INVALID_REQUEST: Final = -32600
_UNAVAILABLE: Final = 503
_HOME: Final = 1
_NAMED: Final = ("tools/call", "prompts/get")
_JSON: Final = [(b"content-type", b"application/json")]
_LOST: Final = "the worker that had this request has ended; the audit trail says what became of the call"

_SILENT: Final = "the worker that this request belongs to is busy, and has not begun with it; send it again"


class Routing:
    """Hands requests over. The principal is known by now; the sibling asks again."""

    def __init__(
        self,
        siblings: Siblings,
        sessions: Sessions,
        rounds: Rounds,
        tasks: Tasks,
        *,
        processes: Collection[str] = (),
    ) -> None:
        """`processes`: the servers that are processes on this machine."""
        self._processes = frozenset(processes)
        self._siblings = siblings
        self._sessions = sessions
        self._rounds = rounds
        self._tasks = tasks

    async def handed_over(
        self,
        head: Head,
        principal: Principal,
        message: Message | None,
        body: bytes,
        receive: Receive,
        send: Send,
        *,
        modern: bool,
    ) -> bool:
        """True when the request was answered elsewhere; False: it is to be served here.

        Raises `Unavailable`: the worker that has the server's process does not answer.
        """
        task = self._task(message)
        relayed: Relayed | None = head.scope.get(RELAYED)
        if relayed is not None:
            if not relayed.only_if_known or self._tasks.servers(principal, task):
                return False
            await send_body(send, 421, b"", [])
            return True
        try:
            session = None if modern or head.session is None else self._sessions.elsewhere(head.session)
            if session is None:
                others = self._others(head.scope["path"], principal, message, task, modern=modern)
                return await self._taken(others, head, body, receive, send)
            if not await self._siblings.relay(session, head.scope, body, receive, send):
                await _tell(send, 404, message, _INVALID_REQUEST, "Session not found")
        except SiblingLost:
            await _tell(send, 502, message, UPSTREAM_FAILED, _LOST)
        except SiblingSilent:
            await _tell(send, 503, message, _INVALID_REQUEST, _SILENT)
        return True

    async def _taken(
        self, others: Iterator[tuple[int, bool]], head: Head, body: bytes, receive: Receive, send: Send
    ) -> bool:
        """Whether one of them has served it. Raises `SiblingLost`, and `SiblingSilent` where that one may have it."""
        silent = False
        for number, only_if_known in others:
            try:
                if await self._siblings.relay(number, head.scope, body, receive, send, only_if_known=only_if_known):
                    return True
            except SiblingSilent:
                if not only_if_known:
                    raise
                silent = True
        if silent:
            raise SiblingSilent
        return False

    def _others(
        self, path: str, principal: Principal, message: Message | None, task: object, *, modern: bool
    ) -> Iterator[tuple[int, bool]]:
        """Who may have it, and whether only if it knows the task."""
        if modern and message is not None:
            waits = self._rounds.elsewhere(message.params.get("requestState"))
            if waits is not None:
                yield waits, False
            elif self._siblings.seat.number != _HOME and self._at_home(path, message):
                yield _HOME, False
                raise Unavailable("the worker that has this server's process is being replaced; try again")
        if task is not None and not self._tasks.servers(principal, task):
            for number in self._siblings.others:
                yield number, True

    def _at_home(self, path: str, message: Message) -> bool:
        """A message of 2026-07-28 that a process is to get, or may have to."""
        if path != "/mcp":
            return path.removeprefix("/servers/").removesuffix("/mcp") in self._processes
        if message.method in _NAMED:
            found = split_name(message.params.get("name"))
            return found is not None and found[0] in self._processes
        return bool(self._processes) and message.method not in TASK_METHODS

    @staticmethod
    def _task(message: Message | None) -> object:
        """The task that a request names: its id is the upstream's own, and says nothing of a worker."""
        if message is None or message.method not in TASK_METHODS or message.method == "tasks/list":
            return None
        return message.params.get("taskId")


async def _tell(send: Send, status: int, message: Message | None, code: int, text: str) -> None:
    headers = [*_JSON, (b"retry-after", b"1")] if status == _UNAVAILABLE else _JSON
    await send_body(send, status, error_message(None if message is None else message.id, code, text), headers)
