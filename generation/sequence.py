"""One generation: the tokens it has, what it wants of the next forward pass, and what became final by it.

It draws tokens, matches stops, makes the text and keeps the log-probabilities. It runs nothing: whoever drives it
(`scheduler.py`) gives it a cache, feeds the engine what `next_step` asks for and hands the logits to `accept`.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import numpy as np

from engines.base import KVCache, Logits, Step, TokenIds
from generation.deadline import Deadline
from generation.params import GenerationParams
from generation.sampling import History, adjust, log_softmax, sample
from generation.stopping import StopMatcher
from generation.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length", "deadline"]

PROMPT_LOGITS_ROWS = 32
"""Prompt positions whose logits are held at once when their log-probabilities are asked for: 32 x V floats."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token and its log-probability under the model, before bias, penalties and temperature."""

    id: int
    offset: int = 0
    """Characters before this token's text: of the completion, or of both where the prompt's tokens are reported."""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """Likeliest alternatives, (id, log-probability), best first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a completion became final with one forward pass."""

    text: str
    tokens: tuple[Token, ...]
    """The tokens whose text has begun to appear; a stop string's own tokens never do."""
    completion_tokens: int
    """Tokens sampled so far, end-of-sequence included, as in the ids that transformers' `generate` returns."""
    finish_reason: FinishReason | None = None
    """Set in the last piece only."""
    end: Token | None = None
    """The end-of-sequence token, in the last piece of a text that one ended. It has no text: `offset` is the end."""


class Sequence:
    """A prompt and its completion. Belongs to one driver."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: TokenIds,
        params: GenerationParams,
        deadline: Deadline | None = None,
        scope: Hashable = None,
    ) -> None:
        """Continue `prompt [S]`. The caller guarantees 1 <= S and S + max_tokens <= context_length.

        Sequences of an equal `scope` may begin with what one of them has read.
        """
        self.params = params
        self.deadline = Deadline() if deadline is None else deadline
        self.scope = scope
        self.prompt = prompt
        self.prompt_length = len(prompt)
        self.cache: KVCache | None = None
        """Given by the driver for as long as the sequence runs."""
        self.finish_reason: FinishReason | None = None
        self.completion_tokens = 0
        self.cached_tokens = 0
        """Of its prompt: those it did not read, because others had."""
        self.begun_at: float | None = None
        """`time.monotonic()` when it first ran, None while it waits."""
        self.first_token_at: float | None = None
        self.latest_token_at: float | None = None
        self._tokenizer = tokenizer
        self._ids = np.empty(len(prompt) + params.max_tokens, np.int64)
        self._ids[: len(prompt)] = prompt
        self._length = len(prompt)
        self._history = History(prompt)
        self._random = Random(params.sampling.seed)
        self._prompt_tokens = [Token(int(prompt[0]))] if params.prompt_logprobs else []
        self._prompt_given = not params.prompt_logprobs
        self._text_of: Detokenizer | None = None
        self._stops = StopMatcher(params.stop)
        self._arrived = self._released = 0  # characters
        self._pending: list[Token] = []

    @property
    def unread(self) -> int:
        """Tokens that the cache does not hold: the prompt at first, 1 while decoding, all after it gave its pages."""
        return self._length - (0 if self.cache is None else self.cache.length)

    @property
    def ids(self) -> TokenIds:
        """The prompt and what was drawn so far, of which the cache holds the beginning."""
        return self._ids[: self._length]

    @property
    def findable(self) -> TokenIds:
        """The ids that it need not read itself: all but the last one, none while it wants the logits of its prompt."""
        return self._ids[: 0 if self._describes_prompt else self._length - 1]

    @property
    def wants_nothing(self) -> bool:
        """Whether it ends without any forward pass: no token and no log-probability was asked for."""
        return self.params.max_tokens == 0 and not self.params.prompt_logprobs

    def next_step(self, most: int) -> Step:
        """The next ids to feed, at most `most`, and how many rows of logits `accept` will want."""
        assert self.cache is not None
        start = self.cache.length
        if self._describes_prompt:
            most = min(most, PROMPT_LOGITS_ROWS)
            first_row = len(self._prompt_tokens) - 1
        else:
            first_row = self._length - 1
        end = min(start + most, self._length)
        return Step(self._ids[start:end], self.cache, max(0, end - max(start, first_row)))

    def accept(self, rows: Logits) -> Piece | None:
        """Take the logits `[last, V]` of the step that was fed. What became final, None while the prompt is read."""
        read = self.unread == 0
        if self._describes_prompt:
            for row in rows[: self.prompt_length - len(self._prompt_tokens)]:
                following = int(self._ids[len(self._prompt_tokens)])
                self._prompt_tokens.append(_describe(following, row, self.params.logprobs or 0))
        if not read:
            return None
        return self.end("length") if self.params.max_tokens == 0 else self._sample(rows[-1])

    def end(self, reason: FinishReason) -> Piece:
        """The last piece, for a completion that ends without another token."""
        return self._piece(self._stops.flush(), self._pending, reason)

    def begin_with(self, cache: KVCache) -> None:
        """Go on behind `cache`, which others have read, instead of its own one."""
        gained = cache.length - (0 if self.cache is None else self.cache.length)
        self.cached_tokens = min(self.cached_tokens + gained, self.prompt_length - 1)
        self.cache = cache

    def begun(self, now: float) -> None:
        """It runs from `now` on, maybe not for the first time."""
        if self.begun_at is None:
            self.begun_at = now

    def made(self, now: float) -> None:
        """A pass that ended at `now` gave it a token."""
        if self.first_token_at is None:
            self.first_token_at = now
        self.latest_token_at = now

    def start_as(self, other: "Sequence") -> None:
        """Take from `other`, which has read the same prompt, what it found out about it."""
        self._prompt_tokens = list(other._prompt_tokens[: self.prompt_length])

    @property
    def _describes_prompt(self) -> bool:
        return self.params.prompt_logprobs and len(self._prompt_tokens) < self.prompt_length

    def _sample(self, logits: Logits) -> Piece:
        """Draw the token after `logits [V]`."""
        params = self.params
        scores = adjust(logits, params.sampling, self._history)
        if self.completion_tokens < params.min_tokens and params.eos_ids:
            scores = scores.copy()
            scores[list(params.eos_ids)] = -np.inf
        token = sample(scores, params.sampling, self._random)
        self.completion_tokens += 1
        self._locate_prompt()
        drawn = Token(token, self._arrived)
        if params.logprobs is not None:
            drawn = replace(_describe(token, logits, params.logprobs), offset=self._arrived)
        if token in params.eos_ids:
            return self._piece(self._stops.flush(), self._pending, "stop", end=drawn)
        self._history.add(token)
        self._ids[self._length] = token
        self._length += 1
        return self._extend(drawn)

    def _extend(self, drawn: Token) -> Piece:
        """Append a token's text."""
        if self._text_of is None:
            self._text_of = Detokenizer(self._tokenizer, self._ids[: self.prompt_length])
        self._pending.append(drawn)
        new = self._text_of.add(drawn.id)
        self._arrived += len(new)
        text = self._stops.add(new) if self.completion_tokens > self.params.min_tokens else new
        reason: FinishReason | None = None
        if self._stops.stopped:
            reason = "stop"
        elif self.completion_tokens == self.params.max_tokens:
            reason = "length"
            text += self._stops.flush()
        self._released += len(text)
        if reason == "length":
            visible = self._pending
        else:
            visible = [token for token in self._pending if token.offset < self._released]
            self._pending = self._pending[len(visible) :]
        return self._piece(text, visible, reason)

    def _piece(
        self, text: str, tokens: Iterable[Token], reason: FinishReason | None, end: Token | None = None
    ) -> Piece:
        self.finish_reason = reason
        if not self._prompt_given:
            self._locate_prompt()
            self._prompt_given = True
            tokens = (*self._prompt_tokens, *tokens)
        return Piece(text, tuple(tokens), self.completion_tokens, reason, end)

    def _locate_prompt(self) -> None:
        """Where the prompt's tokens are reported: the place where each one's text begins, and the text's length."""
        if self._prompt_given or self._arrived:
            return
        text_of = Detokenizer(self._tokenizer, self._ids[:0])
        for number, token in enumerate(self._prompt_tokens):
            self._prompt_tokens[number] = replace(token, offset=self._arrived)
            self._arrived += len(text_of.add(token.id))
        self._released = self._arrived


def _describe(token: int, logits: Logits, count: int) -> Token:
    """A token with its log-probability and those of the `count` likeliest ones."""
    logprobs = log_softmax(logits)
    best = np.argpartition(-logprobs, count)[:count] if 0 < count < len(logprobs) else np.arange(0)
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return Token(token, logprob=float(logprobs[token]), top=tuple((int(i), float(logprobs[i])) for i in best))
