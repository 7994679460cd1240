"""The token loop: prefill, sample, stop, deadline. One generator; everything that generates wraps it.

Knows engines and tokenizers; knows nothing of requests, JSON or transports. It yields at least one chunk per token,
also while no text is final yet, so that whoever drives it can stop within one token by closing it.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

import numpy as np

from engines.base import Engine, KVCache, Logits, Step, TokenIds
from generation.sampling import History, SamplingParams, adjust, log_softmax, sample
from generation.stopping import StopMatcher
from generation.tokenizer import Detokenizer, Tokenizer

FinishReason = Literal["stop", "length", "deadline"]

DEADLINE_MARGIN = 0.2
"""Seconds kept free before a deadline for building and sending the answer."""
SLOW_STEP_FACTOR = 2.0
"""A step is expected to take at most this many times the slowest recent one."""
SLOW_STEP_DECAY = 0.9
"""How much of a slow step's memory is left after each later step."""
PROMPT_LOGITS_CHUNK = 32
"""Prompt positions whose logits are held at once when their log-probabilities are asked for: 32 x V floats."""


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """What to generate after a prompt."""

    max_tokens: int
    min_tokens: int = 0
    """Neither end-of-sequence tokens nor stop strings end the text before this many tokens."""
    stop: tuple[str, ...] = ()
    eos_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    """None for none, else how many of the likeliest alternatives to report beside each token."""
    prompt_logprobs: bool = False
    """Report the prompt's tokens as well, in a first chunk of their own."""
    sampling: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, slots=True)
class Token:
    """One token and its log-probability under the model, before bias, penalties and temperature."""

    id: int
    offset: int = 0
    """Characters before this token's text: of the completion, or of both where the prompt's tokens are reported."""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """Likeliest alternatives, (id, log-probability), best first."""


class Deadline:
    """The `time.monotonic()` instant by which an answer must have left. Another thread may move it nearer."""

    def __init__(self, at: float) -> None:
        self.at = at

    def limit(self, at: float) -> None:
        """Not later than `at`."""
        self.at = min(self.at, at)

    def stop(self) -> None:
        """The generation ends before its next forward pass."""
        self.at = -math.inf


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became final since the chunk before, and where the generation stands."""

    text: str
    tokens: tuple[Token, ...]
    """The tokens whose text has begun to appear; a stop string's own tokens never do."""
    completion_tokens: int
    """Tokens sampled so far, end-of-sequence included, as in the ids that transformers' `generate` returns."""
    finish_reason: FinishReason | None
    """Set in the last chunk only."""
    prefill_seconds: float
    decode_seconds: float
    end: Token | None = None
    """The end-of-sequence token, in the last chunk of a text that one ended. It has no text: `offset` is the end."""


def generate(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: TokenIds,
    params: GenerationParams,
    deadline: Deadline | float | None = None,
) -> Iterator[Chunk]:
    """Continue `prompt [S]`.

    `deadline` is the `time.monotonic()` instant by which the answer must have left, a Deadline where that can change.
    The caller guarantees 1 <= S and S + max_tokens <= context_length. Raises MemoryError when the engine runs out of
    memory.
    """
    started = time.monotonic()
    pace = _Pace(deadline)
    cache = engine.new_cache()
    logits, prompt_tokens = _prefill(engine, cache, prompt, params, pace)
    prefilled = time.monotonic()

    def chunk(
        text: str, tokens: list[Token], sampled: int, finish: FinishReason | None, end: Token | None = None
    ) -> Chunk:
        decode_seconds = time.monotonic() - prefilled
        return Chunk(text, tuple(tokens), sampled, finish, prefilled - started, decode_seconds, end)

    arrived = 0  # characters
    if params.prompt_logprobs:
        located, arrived = _locate(prompt_tokens, tokenizer)
        yield chunk("", located, 0, None)
    released = arrived  # characters
    text_of = Detokenizer(tokenizer, prompt)
    stops = StopMatcher(params.stop)
    pending: list[Token] = []
    for sampled, item in enumerate(_decode(engine, cache, logits, History(prompt), params, pace), start=1):
        if isinstance(item, str):
            yield chunk(stops.flush(), pending, sampled - 1, item)
            return
        token = replace(item, offset=arrived)
        if token.id in params.eos_ids:
            yield chunk(stops.flush(), pending, sampled, "stop", end=token)
            return
        pending.append(token)
        new = text_of.add(token.id)
        arrived += len(new)
        text = stops.add(new) if sampled > params.min_tokens else new
        released += len(text)
        visible = [shown for shown in pending if shown.offset < released]
        pending = pending[len(visible) :]
        yield chunk(text, visible, sampled, "stop" if stops.stopped else None)
        if stops.stopped:
            return


def _prefill(
    engine: Engine, cache: KVCache, prompt: TokenIds, params: GenerationParams, pace: "_Pace"
) -> tuple[Logits | None, list[Token]]:
    """Fill the cache chunk by chunk. Logits `[V]` after the prompt (None: the deadline came first), prompt tokens."""
    size = engine.max_rows
    tokens = []
    if params.prompt_logprobs:
        size = min(size, PROMPT_LOGITS_CHUNK)
        tokens.append(Token(int(prompt[0])))
    elif params.max_tokens == 0:
        return None, []
    row: Logits | None = None
    for start in range(0, len(prompt), size):
        ids = prompt[start : start + size]
        rows = pace.forward(engine, cache, ids, last=len(ids) if params.prompt_logprobs else 1)
        if rows is None:
            return None, tokens
        if params.prompt_logprobs:
            following = prompt[start + 1 : start + 1 + len(ids)]
            for token, row in zip(following.tolist(), rows, strict=False):
                tokens.append(_describe(token, row, params.logprobs or 0))
        row = rows[-1]
    return row, tokens


def _decode(
    engine: Engine,
    cache: KVCache,
    logits: Logits | None,
    history: History,
    params: GenerationParams,
    pace: "_Pace",
) -> Iterator[Token | Literal["length", "deadline"]]:
    """The tokens after `logits [V]`, one forward pass each, and last the reason there are no more.

    It goes on after an end-of-sequence token; who asks for no more of them ends it.
    """
    random = Random(params.sampling.seed)
    token = -1
    for sampled in range(params.max_tokens):
        if sampled > 0:
            rows = pace.forward(engine, cache, np.array([token], dtype=np.int64), last=1)
            logits = None if rows is None else rows[0]
        if logits is None:
            yield "deadline"
            return
        scores = adjust(logits, params.sampling, history)
        if sampled < params.min_tokens and params.eos_ids:
            scores = scores.copy()
            scores[list(params.eos_ids)] = -np.inf
        token = sample(scores, params.sampling, random)
        history.add(token)
        yield Token(token) if params.logprobs is None else _describe(token, logits, params.logprobs)
    yield "length"


def _locate(tokens: list[Token], tokenizer: Tokenizer) -> tuple[list[Token], int]:
    """The tokens of a whole text, each with the place where its own text begins, and the text's length."""
    text_of = Detokenizer(tokenizer, np.empty(0, dtype=np.int64))
    located = []
    offset = 0
    for token in tokens:
        located.append(replace(token, offset=offset))
        offset += len(text_of.add(token.id))
    return located, offset


def _describe(token: int, logits: Logits, count: int) -> Token:
    """A token with its log-probability and those of the `count` likeliest ones."""
    logprobs = log_softmax(logits)
    best = np.argpartition(-logprobs, count)[:count] if 0 < count < len(logprobs) else np.arange(0)
    best = best[np.argsort(-logprobs[best], kind="stable")]
    return Token(token, logprob=float(logprobs[token]), top=tuple((int(i), float(logprobs[i])) for i in best))


class _Pace:
    """How long forward passes take, and whether one more fits before the deadline."""

    def __init__(self, deadline: Deadline | float | None) -> None:
        self._deadline = (
            deadline if isinstance(deadline, Deadline) else Deadline(math.inf if deadline is None else deadline)
        )
        self._slowest = 0.0  # seconds; decays, so that one hiccup does not end the answer early

    def forward(self, engine: Engine, cache: KVCache, ids: TokenIds, last: int) -> Logits | None:
        """`engine.forward`, or None where it would end too late."""
        before = time.monotonic()
        if before + SLOW_STEP_FACTOR * self._slowest > self._deadline.at - DEADLINE_MARGIN:
            return None
        logits = engine.forward([Step(ids, cache, last)])[0]
        # The first decode step is judged by the prefill before it, which never took less.
        self._slowest = max(time.monotonic() - before, SLOW_STEP_DECAY * self._slowest)
        return logits
