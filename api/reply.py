"""A request that is being answered: its sequences, the events their outcomes make, and what it all took.

Replies run in a scheduler, through `Replies`. Lambda's handler makes one of those for a request or a batch; the
server's engine thread has one for everything.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from api.errors import InvalidRequestError, ServiceUnavailableError
from api.events import Content, Event, Failed, Finished, Part
from api.preparation import PreparedRequest
from api.response_types import Timings, Usage
from generation.constraint import GrammarError
from generation.deadline import Deadline
from generation.scheduler import Outcome, Scheduler
from generation.sequence import Piece, Sequence
from generation.shared_prompt import SharedPrompt
from generation.tokenizer import Tokenizer

OUT_OF_MEMORY = "The server ran out of memory for this request; send a shorter prompt or ask for fewer tokens."
TOO_MUCH = "The shape that was asked for took too much to follow"

Report = Callable[[Usage, Timings], Timings]
"""Called once with what a reply took; returns the timings as they go out."""


class Reply:
    """One request under way."""

    def __init__(
        self, prepared: PreparedRequest, tokenizer: Tokenizer, deadline: Deadline | None, report: Report
    ) -> None:
        self.prepared = prepared
        self.over = False
        """After the last event, or after it was given up."""
        self._report = report
        self._numbers = {
            Sequence(tokenizer, choice.prompt, choice.params, deadline, prepared.scope): index
            for index, choice in enumerate(prepared.choices)
        }
        self._unfinished = len(self._numbers)
        reading = prepared.reading
        self._readers = [] if reading is None else [reading.begin() for _ in prepared.choices]
        self._made = [0] * len(prepared.choices)
        """Tokens of each choice so far."""
        self._reasoning_tokens = 0

    @property
    def sequences(self) -> list[Sequence]:
        """One per choice, in their order."""
        return list(self._numbers)

    @property
    def begun(self) -> bool:
        """Whether any of its sequences has ever run."""
        return any(sequence.begun_at is not None for sequence in self._numbers)

    def accept(self, outcome: Outcome) -> list[Event]:
        """The events that an outcome of one of its sequences makes."""
        result = outcome.result
        if isinstance(result, Piece):
            events: list[Event] = [self._part(outcome.sequence, result)]
            self._unfinished -= result.finish_reason is not None
            if self._unfinished == 0:
                events.append(self._finish())
            return events
        return [self.failed(result)]

    def failed(self, error: Exception) -> Failed:
        """The last event of a reply that ends with `error`: what the caller is told of it, where that is known."""
        self.give_up()
        if isinstance(error, MemoryError):
            return Failed(ServiceUnavailableError(OUT_OF_MEMORY, code="out_of_memory"))
        if isinstance(error, GrammarError):
            return Failed(InvalidRequestError(f"{TOO_MUCH}: {error}.", unquoted=f"{TOO_MUCH}."))
        return Failed(error)

    def _part(self, sequence: Sequence, piece: Piece) -> Part:
        """A piece of a choice, with what it says."""
        index, cached = self._numbers[sequence], sequence.cached_tokens
        if not self._readers:
            return Part(index, piece, (Content(piece.text),) if piece.text else (), calls=0, cached_tokens=cached)
        reader = self._readers[index]
        if reader.thinking:
            self._reasoning_tokens += piece.completion_tokens - self._made[index]
        self._made[index] = piece.completion_tokens
        said = reader.add(piece.text, last=piece.finish_reason is not None)
        return Part(index, piece, said, reader.calls, cached)

    def give_up(self) -> None:
        """It ends where it is: report what it took."""
        if not self.over:
            self._finish()

    def _finish(self) -> Finished:
        self.over = True
        usage = self._usage()
        return Finished(usage, self._report(usage, self._timings()))

    def _usage(self) -> Usage:
        """Tokens of all prompts, each counted once, and of all choices."""
        prompt = self.prepared.prompt_tokens
        completion = sum(sequence.completion_tokens for sequence in self._numbers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens()},
            "completion_tokens_details": {
                "reasoning_tokens": self._reasoning_tokens,
                "accepted_prediction_tokens": sum(sequence.accepted_tokens for sequence in self._numbers),
                "rejected_prediction_tokens": sum(sequence.rejected_tokens for sequence in self._numbers),
            },
        }

    def _cached_tokens(self) -> int:
        """Tokens of all prompts that were found read."""
        return sum(max(s.cached_tokens for s in choices) for choices in _by_prompt(self._numbers))

    def _timings(self) -> Timings:
        """Where the time went, from the request's arrival to now."""
        now, received = time.monotonic(), self.prepared.received
        begun = min((s.begun_at for s in self._numbers if s.begun_at is not None), default=now)
        first = min((s.first_token_at for s in self._numbers if s.first_token_at is not None), default=None)
        latest = max((s.latest_token_at for s in self._numbers if s.latest_token_at is not None), default=now)
        made = sum(sequence.completion_tokens for sequence in self._numbers)
        decoding = 0.0 if first is None else latest - first
        # A prompt that is only described has a first piece and no first token.
        first_token = first if made > 0 else None
        return {
            "cold_start": False,
            "queue_ms": _ms(begun - received),
            "prefill_ms": _ms((now if first is None else first) - begun),
            "decode_ms": _ms(decoding),
            "total_ms": _ms(now - received),
            "time_to_first_token_ms": None if first_token is None else _ms(first_token - received),
            "tokens_per_second": round(made / decoding, 1) if made > 1 and decoding > 0 else None,
            "cached_tokens": self._cached_tokens(),
        }


class Replies:
    """The replies that one scheduler works on."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._of: dict[Sequence, Reply] = {}

    @property
    def busy(self) -> bool:
        """Whether any of them still has work."""
        return self.scheduler.busy

    def add(self, reply: Reply) -> None:
        """Begin to work on a reply."""
        for sequences in _by_prompt(reply.sequences):
            shared = SharedPrompt(len(sequences)) if len(sequences) > 1 else None
            for sequence in sequences:
                self._of[sequence] = reply
                self.scheduler.add(sequence, shared)

    def drop(self, reply: Reply) -> None:
        """Stop working on a reply, whether it is over or not; its pages are free at once."""
        for sequence in reply.sequences:
            if self._of.pop(sequence, None) is not None:
                self.scheduler.cancel(sequence)
        reply.give_up()

    def step(self) -> Iterator[tuple[Reply, Event]]:
        """One forward pass: what it made, in the order of arrival. An error, whatever it is, ends its own reply."""
        for outcome in self.scheduler.step():
            reply = self._of.get(outcome.sequence)
            if reply is None:
                continue  # another sequence of its reply failed in this very pass
            try:
                events = reply.accept(outcome)
            except Exception as error:
                events = [reply.failed(error)]
            for event in events:
                if reply.over:
                    self.drop(reply)
                yield reply, event


def _by_prompt(sequences: Iterable[Sequence]) -> Iterator[list[Sequence]]:
    """The choices of each prompt."""
    for _, choices in groupby(sequences, lambda sequence: id(sequence.prompt)):
        yield list(choices)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
