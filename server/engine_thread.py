"""The thread that computes: one scheduler for all requests of the process, away from the event loop.

Requests reach it through a queue that it empties before every forward pass, so that what comes or leaves takes effect
within one pass. It never waits for a reader: a client that reads slowly holds memory, nothing else.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from api.events import Event, Failed, Part
from api.reply import Replies, Reply
from generation.deadline import Deadline
from generation.scheduler import Scheduler

logger = logging.getLogger("uvicorn.error")

Out = Callable[[float | None], None]


class EngineThread:
    """Starts with its first request."""

    def __init__(
        self,
        scheduler: Scheduler,
        watch: Callable[[Scheduler], None] = lambda scheduler: None,
        idle: Callable[[Scheduler], None] = lambda scheduler: None,
    ) -> None:
        """Both are called in the thread: `watch` after every forward pass, `idle` when the last reply is gone."""
        self._replies = Replies(scheduler)
        self._watch = watch
        self._idle = idle
        self._commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._under_way: dict[Reply, _Running] = {}
        self._thread: threading.Thread | None = None

    async def run(self, reply: Reply, deadline: Deadline, out: Out, *, streamed: bool) -> AsyncGenerator[Event]:
        """The events of `reply`, as they come if `streamed`, else all at its end: waking the event loop for each one
        takes time from the forward passes. Closing this drops the reply within one forward pass.

        `out` is called in the event loop once the thread has nothing to do with the reply any more. Raises TimeoutError
        when the reply has not begun by its deadline.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
            self._thread.start()
        running = _Running(asyncio.get_running_loop(), out, streamed=streamed)
        self._commands.put(lambda: self._begin(reply, running))
        try:
            event = await _first_event(reply, running.events, deadline)
            while True:
                yield event
                if not isinstance(event, Part):
                    return
                event = await running.events.get()
        finally:
            self._commands.put(lambda: self._drop(reply))

    def close(self) -> None:
        """Let the thread end."""
        self._commands.put(None)

    def _work(self) -> None:
        while True:
            try:
                while (command := self._commands.get(block=not self._replies.busy)) is not None:
                    command()
                return
            except Empty:
                self._step()

    def _step(self) -> None:
        try:
            for reply, event in self._replies.step():
                self._under_way[reply].deliver(event)
                if not isinstance(event, Part):
                    self._drop(reply)
            self._watch(self._replies.scheduler)
        except Exception as error:  # whatever it is: the thread must not end, and nobody may wait for ever
            logger.exception("unexpected error in the engine's thread")
            for reply, running in list(self._under_way.items()):
                running.deliver(Failed(error))
                self._drop(reply)

    def _begin(self, reply: Reply, running: "_Running") -> None:
        self._under_way[reply] = running
        self._replies.add(reply)

    def _drop(self, reply: Reply) -> None:
        running = self._under_way.pop(reply, None)
        if running is None:
            return
        try:
            self._replies.drop(reply)
            if not self._replies.busy:
                self._idle(self._replies.scheduler)
        except Exception:  # the thread must not end, and the reply's place must be free
            logger.exception("unexpected error in the engine's thread")
        running.end(reply.begun)


async def _first_event(reply: Reply, events: "asyncio.Queue[Event]", deadline: Deadline) -> Event:
    """The first event. TimeoutError where the time of a reply that never began is up."""
    left = None if deadline.at == math.inf else max(0.0, deadline.at - time.monotonic())
    try:
        async with asyncio.timeout(left):
            event = await events.get()
    except TimeoutError:
        if not reply.begun:
            raise
        event = await events.get()
    if isinstance(event, Part) and event.piece.finish_reason == "deadline" and not reply.begun:
        raise TimeoutError
    return event


class _Running:
    """Where a reply's events go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, out: Out, *, streamed: bool) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._streamed = streamed
        self._held: list[Event] = []
        self._loop = loop
        self._out = out
        self._started = time.monotonic()

    def deliver(self, event: Event) -> None:
        """Hand an event to the event loop, or hold it until the last one has come. In the engine's thread."""
        self._held.append(event)
        if self._streamed or not isinstance(event, Part):
            held, self._held = self._held, []
            with suppress(RuntimeError):  # the loop is closed: nobody reads
                self._loop.call_soon_threadsafe(self._put, held)

    def _put(self, events: list[Event]) -> None:
        for event in events:
            self.events.put_nowait(event)

    def end(self, begun: bool) -> None:
        """The thread has let go of the reply. In the engine's thread."""
        seconds = time.monotonic() - self._started if begun else None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._out, seconds)
