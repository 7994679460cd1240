"""How many generations run at once, who waits for one of them, and who is turned away.

Tokens are computed in the slots' own threads, so that the event loop never waits for one. A thread runs a generation
to its end without asking the loop for anything: a client that reads slowly holds memory, never a slot. Whoever drives a
generation ends it by its deadline, which the token loop reads before every forward pass.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from api.errors import ApiError, RateLimitError, ServiceUnavailableError
from generation.token_loop import Deadline

T = TypeVar("T")

BUSY = "Too many requests are waiting here already; try again later."
DRAINING = "The server is shutting down; send the request again."
LONGEST_RETRY = 60
"""Seconds: the most that a client is told to wait."""
RECENT = 0.2
"""Weight of the latest generation in the mean of how long they take."""


class Slots:
    """`running` generations at a time and `waiting` requests behind them, first come, first served.

    Belongs to one event loop; only the work handed to it runs in other threads. `watch` is told how many requests wait
    or run, whenever that changes.
    """

    def __init__(self, running: int, waiting: int, watch: Callable[[int], None] = lambda admitted: None) -> None:
        self.free = asyncio.Semaphore(running)
        self.threads = ThreadPoolExecutor(running, thread_name_prefix="generation")
        self._running = running
        self._waiting = waiting
        self._watch = watch
        self.places: set[Place] = set()
        self._latest = math.inf
        self._mean_seconds = 1.0

    @property
    def admitted(self) -> int:
        """Requests that wait or run."""
        return len(self.places)

    def enter(self, deadline: Deadline) -> "Place":
        """A place for a request that must be answered by `deadline`. RateLimitError where there is none."""
        if self.admitted >= self._running + self._waiting:
            raise self.refusal()
        deadline.limit(self._latest)
        place = Place(self, deadline)
        self.places.add(place)
        self._watch(self.admitted)
        return place

    def left(self, place: "Place", seconds: float | None) -> None:
        """Told by a place that it is free, and for how long its work ran if it did. The second time means nothing."""
        if place in self.places:
            self.places.remove(place)
            self._watch(self.admitted)
            if seconds is not None:
                self._mean_seconds += RECENT * (seconds - self._mean_seconds)

    def drain(self, until: float) -> None:
        """No generation, running or to come, may last longer than to this `time.monotonic()` instant."""
        self._latest = until
        for place in self.places:
            place.deadline.limit(until)

    def refusal(self) -> ApiError:
        """Why there is no slot, and when to try again."""
        if self._latest < math.inf:
            return ServiceUnavailableError(DRAINING, code="shutting_down")
        expected = math.ceil(self.admitted * self._mean_seconds / self._running)
        return RateLimitError(BUSY, retry_after=max(1, min(LONGEST_RETRY, expected)))

    def close(self) -> None:
        """Let the threads end."""
        self.threads.shutdown(wait=False, cancel_futures=True)


class Place:
    """One request's place: kept until its tokens are computed, or until it gives up. A context manager."""

    def __init__(self, slots: Slots, deadline: Deadline) -> None:
        self.deadline = deadline
        self._slots = slots

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._slots.left(self, None)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work` in a slot. RateLimitError when none becomes free before the deadline."""
        return await self._settled(await self._start(work))

    async def iterate(self, items: Iterator[T | None]) -> AsyncGenerator[T]:
        """What `items` yields in a slot, Nones left out. Closing this ends the work and waits for its end."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[T | None] = asyncio.Queue()

        def produce() -> None:
            for item in items:
                if item is not None:
                    loop.call_soon_threadsafe(arrived.put_nowait, item)

        produced = await self._start(produce)
        produced.add_done_callback(lambda _: arrived.put_nowait(None))  # behind everything it produced
        try:
            while (item := await arrived.get()) is not None:
                yield item
        finally:
            if not produced.done():
                self.deadline.stop()
            await self._settled(produced)

    async def _start(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Begin `work` in a slot. Slot and place are free again when it ends, whoever still reads what it made."""
        slots, at = self._slots, self.deadline.at
        try:
            async with asyncio.timeout(None if at == math.inf else max(0.0, at - time.monotonic())):
                await slots.free.acquire()
        except TimeoutError:
            raise slots.refusal() from None
        started = time.monotonic()
        if started >= self.deadline.at:
            slots.free.release()
            raise slots.refusal()
        future = asyncio.get_running_loop().run_in_executor(slots.threads, work)

        def ended(_: object) -> None:
            slots.free.release()
            slots.left(self, time.monotonic() - started)

        future.add_done_callback(ended)
        return future

    async def _settled(self, future: "asyncio.Future[T]") -> T:
        """The result; when this task is cancelled, the work is ended first."""
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.deadline.stop()
            await asyncio.wait([future])
            future.exception()  # nobody is left to hear of it
            raise
