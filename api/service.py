"""Request to generation to response, whole or streamed. What both entry points call.

Runs the token loop once per choice and words the answer with `responses.py`; what is checked before that is in
`preparation.py`. Knows no transport and no AWS.
"""

import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import Any

from api.errors import ServiceUnavailableError
from api.model import Model
from api.preparation import Job, Run, prepare
from api.response_types import ChatChoice, ChatChunkChoice, CompletionChoice, Delta, Timings, Usage
from api.responses import chat_choice, chat_chunk_choice, completion_choice
from api.schema import ChatRequest, CompletionRequest
from generation.token_loop import Chunk, Deadline, generate

Answer = dict[str, Any]
"""One of the objects in `response_types.py`, as it goes out."""
OUT_OF_MEMORY = "The server ran out of memory for this request; send a shorter prompt or ask for fewer tokens."


class Service:
    """Serves one model. Thread-safe; every request's state is its own."""

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int = 0,
        max_choices: int = 128,
        report: Callable[[Usage, Timings], None] | None = None,
    ) -> None:
        """`max_tokens` and `max_choices` cap what one request may ask for; 0 tokens leave it to the context.

        `report` is called at the end of every generation, also of one that its reader closed.
        """
        self.model = model
        self._report = report
        self._max_tokens = max_tokens or model.engine.context_length
        self._max_choices = max_choices
        self._cold = True
        self._cold_lock = threading.Lock()

    def mark_cold(self) -> None:
        """The next generation is the first of a new environment."""
        self._cold = True

    def prepare(self, request: CompletionRequest | ChatRequest) -> Job:
        """Check a request against the model; everything the caller can get wrong is found here."""
        return prepare(request, self.model, self._max_tokens, self._max_choices)

    def respond(self, job: Job, deadline: Deadline | float | None = None) -> Answer:
        """The whole answer. `deadline` as in `generate`. Raises ServiceUnavailableError when memory runs out."""
        tally = _Tally(job)
        request, tokenizer = job.request, self.model.tokenizer
        choices: list[CompletionChoice | ChatChoice] = []
        for index, run in enumerate(job.runs):
            chunks = list(self._chunks(run, deadline, tally))
            if isinstance(request, ChatRequest):
                choices.append(chat_choice(index, chunks, tokenizer, logprobs=request.logprobs))
            else:
                choices.append(completion_choice(index, chunks, tokenizer, echo=run.echo, logprobs=request.logprobs))
        usage, timings = self._finish(tally)
        kind = "chat.completion" if isinstance(request, ChatRequest) else "text_completion"
        return {**self._heading(kind), "choices": choices, "usage": usage, "timings": timings}

    def stream(self, job: Job, deadline: Deadline | float | None = None) -> Generator[Answer | None]:
        """The answer in parts: one step per token, None where a token made nothing visible yet.

        Closing the iterator stops the generation. The parts' texts, joined, are the text that `respond` gives.
        """
        tally = _Tally(job)
        request = job.request
        heading = self._heading("chat.completion.chunk" if isinstance(request, ChatRequest) else "text_completion")
        counted = request.stream_options is not None and request.stream_options.include_usage
        uncounted = {"usage": None} if counted else {}
        try:
            for index, run in enumerate(job.runs):
                for choice in self._choice_parts(request, index, run, self._chunks(run, deadline, tally)):
                    yield None if choice is None else {**heading, "choices": [choice], **uncounted}
        finally:
            usage, timings = self._finish(tally)
        if counted:
            yield {**heading, "choices": [], "usage": usage, "timings": timings}

    def _choice_parts(
        self, request: CompletionRequest | ChatRequest, index: int, run: Run, chunks: Iterator[Chunk]
    ) -> Iterator[CompletionChoice | ChatChunkChoice | None]:
        """One choice in parts, None for a chunk with nothing to show."""
        tokenizer = self.model.tokenizer
        if isinstance(request, ChatRequest):
            opening: Delta = {"role": "assistant", "content": "", "refusal": None}
            yield chat_chunk_choice(index, opening, None, tokenizer, logprobs=request.logprobs)
        echo = run.echo
        for chunk in chunks:
            if not (chunk.text or chunk.tokens or chunk.finish_reason or echo):
                yield None
            elif isinstance(request, ChatRequest):
                delta: Delta = {"content": chunk.text} if chunk.text else {}
                yield chat_chunk_choice(index, delta, chunk, tokenizer, logprobs=request.logprobs)
            else:
                yield completion_choice(index, [chunk], tokenizer, echo=echo, logprobs=request.logprobs)
                echo = ""

    def _chunks(self, run: Run, deadline: Deadline | float | None, tally: "_Tally") -> Iterator[Chunk]:
        """The token loop for one choice."""
        try:
            for chunk in generate(self.model.engine, self.model.tokenizer, run.prompt, run.params, deadline):
                tally.count(chunk)
                yield chunk
            return
        except MemoryError:
            pass  # answered below, where no traceback holds the cache any more
        raise ServiceUnavailableError(OUT_OF_MEMORY, code="out_of_memory")

    def _heading(self, kind: str) -> Answer:
        identity = f"{'cmpl' if kind == 'text_completion' else 'chatcmpl'}-{uuid.uuid4().hex}"
        return {"id": identity, "object": kind, "created": int(time.time()), "model": self.model.name}

    def _finish(self, tally: "_Tally") -> tuple[Usage, Timings]:
        """Add up and report; the first generation of the process also carries the load's phases."""
        with self._cold_lock:
            cold, self._cold = self._cold, False
        usage, timings = tally.usage(), tally.timings(cold)
        if cold:
            timings["init"] = self.model.load_ms
        if self._report is not None:
            self._report(usage, timings)
        return usage, timings


class _Tally:
    """What usage and timings add up from the generations of one request."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._started = time.monotonic()
        self._first_token: float | None = None
        self._prefill = self._decode = 0.0
        self._completion_tokens = 0

    def count(self, chunk: Chunk) -> None:
        """Note one chunk."""
        if self._first_token is None and chunk.completion_tokens > 0:
            self._first_token = time.monotonic()
        if chunk.finish_reason:
            self._prefill += chunk.prefill_seconds
            self._decode += chunk.decode_seconds
            self._completion_tokens += chunk.completion_tokens

    def usage(self) -> Usage:
        """Tokens of all prompts, each counted once, and of all choices."""
        prompt, completion = self._job.prompt_tokens, self._completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def timings(self, cold: bool) -> Timings:
        """Where the time went, from the request's arrival to now."""
        received = self._job.received
        first, count = self._first_token, self._completion_tokens
        return {
            "cold_start": cold,
            "queue_ms": _ms(self._started - received),
            "prefill_ms": _ms(self._prefill),
            "decode_ms": _ms(self._decode),
            "total_ms": _ms(time.monotonic() - received),
            "time_to_first_token_ms": None if first is None else _ms(first - received),
            "tokens_per_second": round(count / self._decode, 1) if count > 1 and self._decode > 0 else None,
        }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
