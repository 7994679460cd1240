"""A model and what every request to it shares: limits, measured costs, the report of what an answer took.

Checks requests, begins their replies, and, for a caller that has a thread for it, drives them to the end. A server
drives the same replies from a thread of its own.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from api.answers import Answer, StreamedAnswer, WholeAnswer
from api.errors import InvalidRequestError
from api.events import Event
from api.model import Model
from api.preparation import PreparedRequest, prepare
from api.reply import Replies, Reply
from api.response_types import Timings, Usage
from api.responses import wording_of
from api.schema import ChatRequest, CompletionRequest
from engines.base import PAGE_TOKENS
from generation.deadline import Deadline
from generation.drafting import MOST_DRAFTED
from generation.pace import Pace
from generation.prefix_cache import PrefixCache
from generation.scheduler import Scheduler

if TYPE_CHECKING:
    from api.translated import Streamed, TranslatedRequest, Whole

TAKEN_AHEAD = 2
"""Requests of a long batch that are prepared at a time, as a multiple of those that run: no place stays empty."""


class Service:
    """Serves one model. Thread-safe; every request's state is its own."""

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int = 0,
        max_choices: int = 128,
        concurrency: int = 16,
        prefix_cache: int = 50,
        prefix_cache_shared: bool = False,
        draft_tokens: int = MOST_DRAFTED,
        report: Callable[[Usage, Timings], None] | None = None,
    ) -> None:
        """`max_tokens` and `max_choices` cap what one request may ask for; 0 tokens leave it to the context.

        `concurrency` is the most sequences that share a forward pass. Of the memory for keys and values
        `prefix_cache` percent may hold what earlier requests have read, for later ones of the same caller, or of any
        caller with `prefix_cache_shared`. Up to `draft_tokens` tokens are guessed for a pass where a request does not
        say. `report` is called at the end of every reply, also of one that was given up.
        """
        self.model = model
        self._report = report
        self._max_tokens = max_tokens or model.engine.context_length
        self._max_choices = max_choices
        self._concurrency = concurrency
        pages = model.engine.total_tokens // PAGE_TOKENS
        self._prefixes = PrefixCache(model.engine, most=pages * prefix_cache // 100)
        self._prefix_cache_shared = prefix_cache_shared
        self._draft_tokens = draft_tokens
        self._pace = Pace(model.load_ms.get("warm_up_ms", 0.0) / 1000)
        self._cold = True
        self._cold_lock = threading.Lock()

    def mark_cold(self) -> None:
        """The next reply is the first of a new environment."""
        self._cold = True

    def prepare(
        self, request: "CompletionRequest | ChatRequest | TranslatedRequest", caller: bytes | None = None
    ) -> PreparedRequest:
        """Check a request against the model; everything the caller can get wrong is found here.

        `caller` is who sent it, by the API key or signature, None where there are none.
        """
        if not isinstance(request, (CompletionRequest, ChatRequest)):
            try:
                return replace(self.prepare(request.as_chat(), caller), translated=request)
            except InvalidRequestError as error:
                raise request.reworded(error) from None
        scope = (None if self._prefix_cache_shared else caller, request.prompt_cache_key, request.cache_salt)
        return prepare(request, self.model, self._max_tokens, self._max_choices, scope, self._draft_tokens)

    def begin(self, prepared: PreparedRequest, deadline: Deadline | None = None) -> Reply:
        """The reply to a request, which somebody has to drive."""
        return Reply(prepared, self.model.tokenizer, deadline, self._finished)

    def scheduler(self) -> Scheduler:
        """A scheduler for this model, for one thread."""
        return Scheduler(self.model.engine, self._pace, self._concurrency, self._prefixes)

    def run(self, replies: Sequence[Reply]) -> Generator[tuple[Reply, Event]]:
        """Drive `replies` together to their ends: each one's events. Closing the iterator gives up what is left."""
        running = Replies(self.scheduler())
        try:
            for reply in replies:
                running.add(reply)
            while running.busy:
                yield from running.step()
        finally:
            for reply in replies:
                running.drop(reply)

    def respond(self, prepared: PreparedRequest, deadline: Deadline | None = None) -> Answer:
        """The whole answer. Raises ServiceUnavailableError when memory runs out."""
        whole = self.whole(prepared)
        with closing(self.run([self.begin(prepared, deadline)])) as events:
            return next(answer for _, event in events if (answer := whole.add(event)) is not None)

    def respond_all(
        self, requests: Sequence[Callable[[], PreparedRequest]], deadline: Deadline | None = None
    ) -> list[Answer | Exception]:
        """The whole answers of several requests, made together: each one's own, or the error that it met.

        A request is a function that checks it, so that one which cannot be served costs the others nothing.
        """
        found = dict(self.answers(requests, deadline))
        return [found[place] for place in range(len(requests))]

    def answers(
        self, requests: Iterable[Callable[[], PreparedRequest]], deadline: Deadline | None = None
    ) -> Generator[tuple[int, Answer | Exception]]:
        """As `respond_all` for any number of requests: (place in `requests`, result), as soon as each is there.

        A request is taken and checked when there is room for it. Closing the iterator gives up what is under way.
        """
        running = Replies(self.scheduler())
        under_way: dict[Reply, tuple[int, Whole]] = {}
        waiting = enumerate(requests)
        try:
            while True:
                while len(under_way) < TAKEN_AHEAD * self._concurrency and (entry := next(waiting, None)) is not None:
                    place, request = entry
                    try:
                        prepared = request()
                        reply, whole = self.begin(prepared, deadline), self.whole(prepared)
                    except Exception as error:
                        yield place, error
                        continue
                    under_way[reply] = (place, whole)
                    running.add(reply)
                if not under_way:
                    return
                for reply, event in running.step():
                    if reply not in under_way:
                        continue  # the last of its events came with the one that could not be written
                    place, whole = under_way[reply]
                    try:
                        result: Answer | Exception | None = whole.add(event)
                    except Exception as error:
                        running.drop(reply)
                        result = error
                    if result is not None:
                        del under_way[reply]
                        yield place, result
        finally:
            for reply in under_way:
                running.drop(reply)

    def stream(self, prepared: PreparedRequest, deadline: Deadline | None = None) -> Generator[Answer]:
        """The answer in parts. Closing the iterator stops the generation. Raises as `respond`."""
        streamed = self.streamed(prepared)
        with closing(self.run([self.begin(prepared, deadline)])) as events:
            for _, event in events:
                yield from streamed.parts(event)

    def whole(self, prepared: PreparedRequest) -> "Whole":
        """What makes a whole answer of this request's events."""
        if prepared.translated is not None:
            return prepared.translated.whole(prepared, self.model)
        return WholeAnswer(prepared, wording_of(prepared, self.model.tokenizer), self.model)

    def streamed(self, prepared: PreparedRequest) -> "Streamed":
        """What makes parts of an answer of this request's events."""
        if prepared.translated is not None:
            return prepared.translated.streamed(prepared, self.model)
        return StreamedAnswer(prepared, wording_of(prepared, self.model.tokenizer), self.model)

    def _finished(self, usage: Usage, timings: Timings) -> Timings:
        """Report; the first reply of the process also carries the load's phases."""
        with self._cold_lock:
            cold, self._cold = self._cold, False
        if cold:
            timings = {**timings, "cold_start": True, "init": self.model.load_ms}
        if self._report is not None:
            self._report(usage, timings)
        return timings
