"""Streams of several upstreams as one, and the one answer that a whole stream or body holds."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from fulcrum_mcp.gateway.incoming import Answer
from fulcrum_mcp.gateway.wire import WireError, decode_strict
from fulcrum_mcp.ports import ServerSentEvent

__all__ = ["closing", "collect", "merge", "open_all"]

_QUEUE: Final = 256


async def collect(answer: Answer) -> dict[str, Any] | None:
    """The response in an answer, or None if there is none; the answer is used up."""
    texts: list[bytes] = []
    if answer.events is None:
        texts.append(answer.body)
    else:
        try:
            texts.extend([event.data async for event in answer.events if event.data])
        finally:
            if answer.close is not None:
                await answer.close()
    for text in reversed(texts):
        try:
            value, _ = decode_strict(text)
        except WireError:
            continue
        if isinstance(value, dict) and ("result" in value or "error" in value):
            return value
    return None


async def open_all(opening: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """Several answers at once; when one cannot be had, or nobody wants them any more, all streams are closed."""
    tasks = [asyncio.ensure_future(one) for one in opening]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await closing([answer for answer in ended if isinstance(answer, Answer)])()
        raise


def closing(answers: Sequence[Answer]) -> Callable[[], Awaitable[None]]:
    """Closes all of them."""

    async def close() -> None:
        for answer in answers:
            if answer.close is not None:
                await answer.close()

    return close


async def merge(answers: Sequence[Answer]) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of several streams as they come; ends when all have ended, and closes them whatever happens."""
    queue: asyncio.Queue[ServerSentEvent | None] = asyncio.Queue(_QUEUE)

    async def pump(answer: Answer) -> None:
        read = True
        try:
            if answer.events is not None:
                async for event in answer.events:
                    await queue.put(event)
        except asyncio.CancelledError:
            read = False  # nobody empties the queue any more
            raise
        finally:
            if answer.close is not None:
                await answer.close()
            if read:
                await queue.put(None)

    tasks = [asyncio.create_task(pump(answer)) for answer in answers]
    try:
        left = len(tasks)
        while left:
            event = await queue.get()
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
