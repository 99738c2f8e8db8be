"""Clients of one governed process: each sends its next call when the last one was answered, whatever happens."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

from governed_processes import Governed, until
from stalls import Stalls

__all__ = ["Load"]


class Load:
    """`answered`, `refused` and `lost` say what became of each call."""

    def __init__(self, governed: Governed, seed: int, stalls: Stalls | None = None) -> None:
        self.governed = governed
        self.answered: dict[str, str] = {}
        """Text -> `ok` or `denied`."""
        self.refused: list[str] = []
        """Denied because a part failed: nobody may have seen them."""
        self.lost = 0
        self.slowest = 0.0
        """Seconds of the longest refusal, without `stalls`."""
        self._stalls = stalls
        self._random = random.Random(seed)
        self._rounds: Counter[str] = Counter()
        self._stopping = False
        self._clients: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, clients: int) -> None:
        self._clients = [f"{self.governed.name}-{number}" for number in range(clients)]
        self._tasks = [asyncio.create_task(self._run(client)) for client in self._clients]

    @property
    def total(self) -> int:
        """Calls that had an answer of any kind."""
        return len(self.answered) + len(self.refused)

    async def _run(self, client: str) -> None:
        number = 0
        while not self._stopping:
            number += 1
            text = f"{client}-{number}"
            tool = "tight" if self._random.random() < 0.3 else "mark"
            began = time.monotonic()
            answer = await self.governed.call(tool, text)
            self._rounds[client] += 1
            if answer is None:
                self.lost += 1
                while not self._stopping and not self.governed.running.is_set():
                    await asyncio.wait([asyncio.ensure_future(self.governed.running.wait())], timeout=0.1)
                continue
            self._note(text, answer, began)

    def _note(self, text: str, answer: dict[str, Any], began: float) -> None:
        assert "result" in answer, answer
        result = answer["result"]
        if not result.get("isError"):
            self.answered[text] = "ok"
            return
        reason = result["_meta"]["dev.fulcrum/decision"]["reasons"][0]
        if reason["code"] == "unavailable":
            self.refused.append(text)
            now = time.monotonic()
            if now - began > self.slowest:
                self.slowest = max(self.slowest, self._stalls.own(began, now) if self._stalls else now - began)
        else:
            self.answered[text] = "denied"

    async def more(self, number: int, seconds: float = 60.0) -> None:
        """Wait for so many more answers of any kind."""
        goal = self.total + number

        async def reached() -> bool:
            self._sound()
            return self.total >= goal

        await until(reached, f"{self.governed.name} answers", seconds)

    async def all_anew(self, seconds: float = 60.0) -> None:
        """Wait until every client has had the answer to a call that it began after now."""
        before = self._rounds.copy()

        async def anew() -> bool:
            self._sound()
            return all(self._rounds[client] >= before[client] + 2 for client in self._clients)

        await until(anew, f"every client of {self.governed.name} is answered", seconds)

    def _sound(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        self._stopping = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)
