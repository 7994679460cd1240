"""What one worker process serves with: made once in app.py's lifespan, handed to every request by a dependency."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from api.errors import ServiceUnavailableError
from api.keys import ApiKeys
from api.model import Model
from api.service import Service
from server.admission import DRAINING, Admission
from server.engine_thread import EngineThread
from server.metrics import Metrics
from settings import Settings

logger = logging.getLogger("uvicorn.error")

POLL_SECONDS = 0.05
"""How often a draining process looks whether its last request has ended."""
SENDING_SECONDS = 3.0
"""What clients have after the drain to read their answers, before the process goes whatever they do."""

PREPARING = 2
"""Requests whose bodies are parsed and encoded at once; more wait for it, whatever they hold."""


class DrainingError(ServiceUnavailableError):
    """The process ends; another one will have the answer. Asks for a connection of its own."""

    def __init__(self) -> None:
        super().__init__(DRAINING, code="shutting_down")

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "connection": "close"}


class Serving:
    """A loaded model and everything between it and the socket."""

    def __init__(self, model: Model, settings: Settings, keys: ApiKeys | None = None) -> None:
        self.settings = settings
        self.keys = keys
        self.metrics = Metrics(model)
        self.service = Service(
            model,
            max_tokens=settings.max_tokens,
            max_choices=settings.max_choices,
            concurrency=settings.concurrency,
            prefix_cache=settings.prefix_cache,
            prefix_cache_shared=settings.prefix_cache_shared,
            draft_tokens=settings.prompt_lookup_num_tokens,
            report=self.metrics.record_generation,
        )
        self.admission = Admission(settings.concurrency, settings.queue_length, watch=self.metrics.admitted.set)
        self.engine_thread = EngineThread(
            self.service.scheduler(), watch=self.metrics.record_pass, idle=self.metrics.record_cache
        )
        self.preparing = ThreadPoolExecutor(PREPARING, thread_name_prefix="preparation")
        self.draining = False

    @contextmanager
    def drained_at_sigterm(self) -> Iterator[None]:
        """Put a drain before what the server does at SIGTERM, which is to stop listening at once."""
        loop = asyncio.get_running_loop()
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop) or threading.current_thread() is not threading.main_thread():
            yield  # signals are somebody else's
            return
        drains: list[asyncio.Task[None]] = []

        async def drain() -> None:
            await self.drain()
            stop(signal.SIGTERM, None)
            # To uvicorn a second signal means: no longer wait for clients that do not read.
            loop.call_later(SENDING_SECONDS, stop, signal.SIGINT, None)

        def begin() -> None:
            if not drains:
                drains.append(asyncio.create_task(drain()))

        loop.add_signal_handler(signal.SIGTERM, begin)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, stop)

    async def drain(self) -> None:
        """Refuse what is new, and return when the last request has ended or its time was cut."""
        self.draining = True
        until = time.monotonic() + self.settings.drain_timeout
        logger.info("Draining: %d requests have %g s to finish", self.admission.admitted, self.settings.drain_timeout)
        self.admission.drain(until)
        while self.admission.admitted and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
