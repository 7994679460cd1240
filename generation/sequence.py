"""One generation: the tokens it has, what it wants of the next forward pass, and what became final by it.

It draws tokens, matches stops, makes the text and keeps the log-probabilities. It runs nothing: whoever drives it
(`scheduler.py`) gives it a cache, feeds the engine what `next_step` asks for and hands the logits to `accept`.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from random import Random
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from engines.base import KVCache, Step, TokenIds, token_ids
from generation.choosing import choose, describe
from generation.constraint import MOST_FORCED
from generation.deadline import Deadline
from generation.drafting import MOST_DRAFTED, Drafter
from generation.history import History
from generation.params import GenerationParams
from generation.stopping import StopMatcher
from generation.tokenizer import Detokenizer, Tokenizer

if TYPE_CHECKING:
    from engines.rows import Row, Rows

FinishReason = Literal["stop", "length", "deadline"]

PROMPT_LOGITS_ROWS = 32
"""Prompt positions whose logits are held at once when their log-probabilities are asked for: 32 x V floats."""


class Token(Struct, frozen=True):
    """One token and its log-probability under the model, before bias, penalties and temperature."""

    id: int
    offset: int = 0
    """Characters before this token's text: of the completion, or of both where the prompt's tokens are reported."""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """Likeliest alternatives, (id, log-probability), best first."""


class Piece(Struct, frozen=True):
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
    stop_string: str | None = None
    """What ended the text, in the last piece of one that a stop string ended."""


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
        self._had_read = 0
        """Tokens that it had in a cache when it made room."""
        self.drafted = 0
        """Tokens of its draft in the step that it was asked for last."""
        self.accepted_tokens = 0
        """Of all its drafts: those that came, each without a pass of its own."""
        self.rejected_tokens = 0
        """And the others."""
        self.begun_at: float | None = None
        """`time.monotonic()` when it first ran, None while it waits."""
        self.first_token_at: float | None = None
        self.latest_token_at: float | None = None
        self._tokenizer = tokenizer
        self._ids = token_ids(prompt.tolist())
        self._history = History(self._ids)
        self._length = len(self._ids)
        self._ids.extend(token_ids([0]) * params.max_tokens)
        self._random = Random(params.sampling.seed)
        self._prompt_tokens = [Token(self._ids[0])] if params.prompt_logprobs else []
        self._prompt_given = not params.prompt_logprobs
        self._text_of: Detokenizer | None = None
        grammar = params.grammar
        self._constraint = None if grammar is None else grammar.begin()
        self._ends = params.eos_ids if self._constraint is None else self._constraint.ends
        self._forced = 0
        """Tokens after the latest drawn one."""
        self._undescribed: deque[int] = deque()
        """Those of them whose log-probabilities are wanted and not known yet: their text waits for these."""
        self._described: list[Token] = []
        """Those whose text is next."""
        self._drafter: Drafter | None = None
        self._draft: list[int] = []
        """What may follow, as last looked up."""
        self._stops = StopMatcher(params.stop, grammar.reader().may_end_after if grammar and params.stop else None)
        self._arrived = self._released = 0  # characters
        self._pending: list[Token] = []

    @property
    def reads(self) -> bool:
        """Whether it has more to read than its latest tokens: the prompt, or everything again."""
        return self.unread > 1 + self._forced

    @property
    def unread(self) -> int:
        """Tokens that the cache does not hold: the prompt at first, the latest ones while decoding.

        All of them after it gave its pages back.
        """
        return self._length - (0 if self.cache is None else self.cache.length)

    @property
    def ids(self) -> TokenIds:
        """The prompt and what was drawn so far, of which the cache holds the beginning."""
        return self._ids[: self._length]

    @property
    def findable(self) -> TokenIds:
        """The ids that it need not read itself: all before those whose logits it wants."""
        return self._ids[: 0 if self._describes_prompt else self._length - 1 - len(self._undescribed)]

    @property
    def wants_nothing(self) -> bool:
        """Whether it ends without any forward pass: no token and no log-probability was asked for."""
        return self.params.max_tokens == 0 and not self.params.prompt_logprobs

    def look_up(self) -> list[float]:
        """Look up a draft of what follows. How likely each of its tokens is to come with all before it."""
        most = min(self.params.most_drafted, MOST_DRAFTED, self.params.max_tokens - self._made - 1)
        if most <= 0:
            return []
        if self._drafter is None:
            self._drafter = Drafter(self._ids[: self.prompt_length], self.params.prediction)
            for token in self._ids[self.prompt_length : self._length].tolist():
                self._drafter.add(token)
        self._draft, chances = self._drafter.draft(most)
        if self._constraint is not None and self._draft:
            self._draft = self._constraint.possible(self._draft)
        return chances[: len(self._draft)]

    def next_step(self, most: int, drafted: int = 0) -> Step:
        """The next ids to feed, at most `most`, and how many rows of logits `accept` will want.

        They end with the first `drafted` tokens of its draft, where all ids before those are fed as well.
        """
        assert self.cache is not None
        self.drafted = drafted
        if drafted:
            self._ids[self._length : self._length + drafted] = token_ids(self._draft[:drafted])
        start = self.cache.length
        if self._describes_prompt:
            most = min(most, PROMPT_LOGITS_ROWS)
            first_row = len(self._prompt_tokens) - 1
        else:
            first_row = self._length - 1 - len(self._undescribed)
        end = min(start + most, self._length + drafted)
        return Step(self._ids[start:end], self.cache, max(0, end - max(start, first_row)))

    def accept(self, rows: "Rows") -> Piece | None:
        """Take the logits `[last, V]` of the step that was fed. What became final, None while the prompt is read.

        The cache then holds nothing of a draft but what came.
        """
        assert self.cache is not None
        tried = self._length
        fed = self._ids[tried : self.cache.length].tolist()
        place = self.cache.length - len(rows)
        pieces: list[Piece] = []
        for row in rows:
            place += 1
            if place < self.prompt_length:
                self._prompt_tokens.append(_describe(int(self._ids[place]), row, self.params.logprobs or 0))
            elif place < self._length:
                if self._undescribed:
                    self._described.append(_describe(self._undescribed.popleft(), row, self.params.logprobs or 0))
            else:
                pieces.append(self.end("length") if self.params.max_tokens == 0 else self._go_on(row))
                if pieces[-1].finish_reason is not None:
                    break
            if tried <= place < self.cache.length and fed[place - tried] != self._ids[place]:
                break
        if fed:
            self.cache.truncate(place)
            self.accepted_tokens += place - tried
            self.rejected_tokens += tried + len(fed) - place
        return _joined(pieces) if pieces else None

    def end(self, reason: FinishReason) -> Piece:
        """The last piece, for a completion that ends without another token."""
        return self._piece(self._rest(), self._pending, reason)

    def begin_with(self, cache: KVCache) -> None:
        """Go on behind `cache`, which others have read, or it had itself before it made room."""
        read = self._had_read if self.cache is None else max(self._had_read, self.cache.length)
        gained = max(0, cache.length - read)
        self.cached_tokens = min(self.cached_tokens + gained, self.prompt_length - 1)
        self.cache = cache

    def make_room(self) -> None:
        """Give its cache back; it can begin again."""
        assert self.cache is not None
        self._had_read = self.cache.length
        self.cache.close()
        self.cache = None

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

    @property
    def _made(self) -> int:
        """Tokens of the completion, those included whose text is not out yet."""
        return self._length - self.prompt_length

    @property
    def _is_complete(self) -> bool:
        """Whether its grammar lets nothing follow."""
        return self._constraint is not None and self._constraint.is_complete

    def _go_on(self, logits: "Row") -> Piece:
        """What became final with the logits `[V]` after all its tokens."""
        self._locate_prompt()
        tokens, self._described = self._described, []
        self._forced = 0
        if self._is_complete or self._made == self.params.max_tokens:
            return self._put(tokens)
        drawn = self._draw(logits)
        if drawn.id in self._ends:
            return self._put(tokens, end=drawn)
        self._append(drawn.id)
        return self._put([*tokens, drawn, *self._force(drawn.id)])

    def _draw(self, logits: "Row") -> Token:
        """The token after `logits [V]`, described where that is wanted."""
        params = self.params
        may_end = self._made >= params.min_tokens
        allowed, barred = None, frozenset[int]()
        if self._constraint is not None:
            allowed = self._constraint.allowed(may_end=may_end and bool(params.eos_ids))
        elif not may_end:
            barred = params.eos_ids
        token = choose(logits, params.sampling, self._history, self._random, allowed, barred)
        return Token(token) if params.logprobs is None else _describe(token, logits, params.logprobs)

    def _append(self, token: int) -> None:
        self._history.add(token)
        if self._drafter is not None:
            self._drafter.add(token)
        self._ids[self._length] = token
        self._length += 1

    def _force(self, token: int) -> list[Token]:
        """Append what the grammar has follow `token`, to be fed together with it. What of that has no log-probability.

        The log-probabilities of the others come from the pass that they are fed to.
        """
        if self._constraint is None:
            return []
        self._constraint.take(token)
        forced = self._constraint.take_forced(min(MOST_FORCED, self.params.max_tokens - self._made))
        for following in forced:
            self._append(following)
        self._forced = len(forced)
        if self.params.logprobs is None:
            return [Token(following) for following in forced]
        self._undescribed.extend(forced)
        return []

    def _put(self, tokens: list[Token], end: Token | None = None) -> Piece:
        """Append the texts of `tokens`, after which `end` was drawn, if it was."""
        if self._text_of is None:
            self._text_of = Detokenizer(self._tokenizer, self._ids[: self.prompt_length], self.params.shown)
        text = ""
        reason: FinishReason | None = None
        for token in tokens:
            self.completion_tokens += 1
            self._pending.append(replace(token, offset=self._arrived))
            new = self._text_of.add(token.id)
            self._arrived += len(new)
            text += self._stops.add(new) if self.completion_tokens > self.params.min_tokens else self._stops.skip(new)
            if self._stops.met is not None:
                break
        if self._stops.met is not None:
            reason, end = "stop", None
        elif end is not None:
            self.completion_tokens += 1
            reason, end = "stop", replace(end, offset=self._arrived)
        elif self._is_complete and not self._undescribed:
            reason = "stop"
        elif self.completion_tokens == self.params.max_tokens:
            reason = "length"
        if reason is not None and self._stops.met is None:
            text += self._rest()
        self._released += len(text)
        if reason is not None and self._stops.met is None:
            visible = self._pending
        else:
            visible = [token for token in self._pending if token.offset < self._released]
            self._pending = self._pending[len(visible) :]
        return self._piece(text, visible, reason, end)

    def _rest(self) -> str:
        """What was held back of the text, once no token will come."""
        released = self._stops.add("" if self._text_of is None else self._text_of.flush())
        return released if self._stops.met is not None else released + self._stops.flush()

    def _piece(
        self, text: str, tokens: Iterable[Token], reason: FinishReason | None, end: Token | None = None
    ) -> Piece:
        self.finish_reason = reason
        if not self._prompt_given:
            self._locate_prompt()
            self._prompt_given = True
            tokens = (*self._prompt_tokens, *tokens)
        return Piece(text, tuple(tokens), self.completion_tokens, reason, end, self._stops.met)

    def _locate_prompt(self) -> None:
        """Where the prompt's tokens are reported: the place where each one's text begins, and the text's length."""
        if self._prompt_given or self._arrived:
            return
        text_of = Detokenizer(self._tokenizer, self._ids[:0])
        for number, token in enumerate(self._prompt_tokens):
            self._prompt_tokens[number] = replace(token, offset=self._arrived)
            self._arrived += len(text_of.add(token.id))
        self._released = self._arrived


def _joined(pieces: list[Piece]) -> Piece:
    """Pieces that follow each other, as one."""
    if len(pieces) == 1:
        return pieces[0]
    text = "".join(piece.text for piece in pieces)
    return replace(pieces[-1], text=text, tokens=tuple(token for piece in pieces for token in piece.tokens))


def _describe(token: int, logits: "Row", count: int) -> Token:
    """A token with its log-probability and those of the `count` likeliest ones."""
    logprob, top = describe(logits, token, count)
    return Token(token, logprob=logprob, top=top)
