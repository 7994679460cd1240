"""Drafts change when a text is there, never the text: tokens, log-probabilities and endings are as without them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from engines import compiled_engine
from engines.base import PAGE_TOKENS, Engine, Logits, OutOfPagesError, TokenIds
from generation.constraint import Grammar, Grammars
from generation.deadline import Deadline
from generation.drafting import MOST_ROWS, Drafter, pass_cost, shared_out
from generation.pace import ANSWER_SECONDS, Pace
from generation.params import GenerationParams, SamplingParams
from generation.prefix_cache import PrefixCache
from generation.scheduler import Scheduler
from generation.sequence import Piece, Token
from generation.sequence import Sequence as TokenSequence
from generation.tokenizer import Tokenizer
from tests.deterministic_engine import STEP, DeterministicEngine, HistoryCache, read_tokenizer

TWENTY = np.arange(10, 30)
VOCAB = 320
EOS = 7
GRAMMARS = [
    Grammar("regex", "[a-f]{3,12}( the end)?"),
    Grammar("choice", '["the quick brown fox", "the quiet river", "a"]'),
    Grammar(
        "json_schema",
        '{"type": "object", "properties": {"animal": {"enum": ["fox", "goat"]}, "legs": {"type": "integer"}},'
        ' "required": ["animal", "legs"], "additionalProperties": false}',
    ),
]


@dataclass
class Result:
    """A sequence's whole completion."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    completion_tokens: int = 0
    reason: str | None = None
    end: Token | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += piece.tokens
        self.completion_tokens, self.reason, self.end = piece.completion_tokens, piece.finish_reason, piece.end


class Wanted(Struct, frozen=True):
    """One sequence to be."""

    prompt: TokenIds
    params: GenerationParams
    passes_before: int = 0
    """Passes of the others before it comes."""


@pytest.fixture(scope="module")
def tokenizer(llama_directory: Path) -> Tokenizer:
    return read_tokenizer(llama_directory)


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, VOCAB, {EOS})


@pytest.fixture(scope="module", params=["none", "int8", pytest.param("int4", marks=pytest.mark.slow)])
def compiled_model(
    request: pytest.FixtureRequest, llama_directory: Path, compiled: Callable[..., Path]
) -> compiled_engine.CompiledEngine:
    return compiled_engine.load(compiled(llama_directory, request.param), threads=1)


def run(scheduler: Scheduler, tokenizer: Tokenizer, wanted: list[Wanted]) -> tuple[list[Result], list[TokenSequence]]:
    """Everything that is wanted, together. After every pass no cache holds more than what its sequence is sure of."""
    sequences = [TokenSequence(tokenizer, each.prompt, each.params) for each in wanted]
    results = {sequence: Result() for sequence in sequences}
    coming = sorted(zip(sequences, wanted, strict=True), key=lambda pair: pair[1].passes_before)
    passes = 0
    while coming or scheduler.busy:
        while coming and (coming[0][1].passes_before <= passes or not scheduler.busy):
            scheduler.add(coming.pop(0)[0])
        for outcome in scheduler.step():
            if isinstance(outcome.result, Exception):
                raise outcome.result
            results[outcome.sequence].add(outcome.result)
        passes += 1
        for sequence in sequences:
            cache = sequence.cache
            if cache is not None:
                assert cache.length < len(sequence.ids)
                if isinstance(cache, HistoryCache):
                    assert cache.states == states_of(sequence.ids[: cache.length])
                elif cache.pages:
                    assert len(cache.pages) == -(-cache.length // PAGE_TOKENS)
    return [results[sequence] for sequence in sequences], sequences


def states_of(ids: TokenIds) -> list[int]:
    states: list[int] = []
    for token in ids.tolist():
        states.append(((states[-1] if states else 1) * STEP + token + 1) % 2**64)
    return states


def alone(engine: Engine, tokenizer: Tokenizer, wanted: Wanted) -> tuple[Result, TokenSequence]:
    """Without drafts and neighbours."""
    plain = replace(wanted, params=replace(wanted.params, most_drafted=0), passes_before=0)
    (result,), (sequence,) = run(Scheduler(engine, Pace(), 1), tokenizer, [plain])
    return result, sequence


def wanted_at_random(draw: Random, engine: Engine, tokenizer: Tokenizer, grammars: Grammars, longest: int) -> Wanted:
    """A request whose prediction is the text it will have, with a token changed here and there, or none."""
    sampling = SamplingParams(
        temperature=draw.choice([0.0, 0.3, 1.0]),
        top_p=draw.choice([1.0, 0.8]),
        top_k=draw.choice([0, 5]),
        seed=draw.randrange(1000),
        repetition_penalty=draw.choice([1.0, 1.3]),
        frequency_penalty=draw.choice([0.0, 0.5]),
        logit_bias=draw.choice([{}, {70: 4.0, 71: 4.0}, {EOS: 6.0}]),
    )
    max_tokens = draw.choice([1, 2, 3, 15, 16, 17, 31, 32, 33, 60])
    params = GenerationParams(
        max_tokens=max_tokens,
        min_tokens=draw.choice([0, 0, min(5, max_tokens)]),
        stop=draw.choice([(), (), ("e", "th"), ("a",)]),
        eos_ids=draw.choice([frozenset(), frozenset({EOS})]),
        logprobs=draw.choice([None, None, 0, 3]),
        sampling=sampling,
        grammar=grammars.compiled(draw.choice(GRAMMARS)) if draw.random() < 0.3 else None,
    )
    params = replace(params, prompt_logprobs=params.logprobs is not None and draw.random() < 0.3)
    period = draw.choice([3, 30, 100])
    prompt = np.array([draw.randrange(8, 300) for _ in range(period)] * 3)[: draw.randrange(1, longest)]
    wanted = Wanted(prompt, params, draw.randrange(6))
    _, sequence = alone(engine, tokenizer, wanted)
    prediction = sequence.ids[len(prompt) :]
    for place in range(len(prediction)):
        if draw.random() < 0.1:
            prediction[place] = draw.randrange(8, 300)
    given = prediction if draw.random() < 0.8 else None
    return replace(wanted, params=replace(params, most_drafted=draw.choice([1, 5, 31]), prediction=given))


def check_a_mix(
    engine: Engine, tokenizer: Tokenizer, grammars: Grammars, seed: int, longest: int = 100
) -> list[TokenSequence]:
    """Several at once, with drafts and pages that were read before, give what each gives alone without."""
    draw = Random(seed)
    wanted = [wanted_at_random(draw, engine, tokenizer, grammars, longest) for _ in range(draw.randrange(1, 5))]
    prefixes = PrefixCache(engine, most=draw.choice([0, 1000]))
    scheduler = Scheduler(engine, Pace(), draw.choice([1, 2, 8]), prefixes)
    expected = [alone(engine, tokenizer, each)[0] for each in wanted]
    made = []
    for _ in range(2):
        results, sequences = run(scheduler, tokenizer, wanted)
        assert results == expected
        made += sequences
    prefixes.evict(1000)
    return made


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_text_is_the_same_with_drafts(tokenizer: Tokenizer, grammars: Grammars, seed: int) -> None:
    check_a_mix(DeterministicEngine(), tokenizer, grammars, seed)


def test_a_text_is_the_same_with_drafts_in_every_precision(
    compiled_model: compiled_engine.CompiledEngine, tokenizer: Tokenizer, grammars: Grammars
) -> None:
    """int4 too, as long as no pass has 48 rows, which prompts so short do not make."""
    longest = 8 if compiled_model.dtype == "int4" else 100
    accepted = 0
    for seed in range(25):
        made = check_a_mix(compiled_model, tokenizer, grammars, seed, longest)
        accepted += sum(sequence.accepted_tokens for sequence in made)
    assert accepted > 100
    assert compiled_model.pool.idle == 0


def test_what_followed_the_longest_match_is_guessed() -> None:
    prompt = np.array([1, 2, 3, 4, 10, 9, 2, 3, 4, 11, 5, 3, 4, 12, 1, 2, 3, 4])
    assert Drafter(prompt).draft(2)[0] == [10, 9]
    assert Drafter(prompt[1:]).draft(1)[0] == [11]  # of two that are as long, the latest


def test_a_text_that_repeats_itself_is_guessed_to_go_on() -> None:
    drafter = Drafter(np.array([5, 6, 7] * 10))
    tokens, chances = drafter.draft(8)
    assert tokens == [5, 6, 7, 5, 6, 7, 5, 6][: len(chances)]
    assert len(chances) > 3


def test_a_prediction_is_the_first_guess_and_is_found_again_after_it_was_left() -> None:
    drafter = Drafter(np.array([1, 2, 3]), np.array([20, 21, 22, 23, 24, 25]))
    assert drafter.draft(3)[0] == [20, 21, 22]
    for token in (20, 21, 99):
        drafter.add(token)
    assert drafter.draft(3)[0] == []
    for token in (22, 23):
        drafter.add(token)
    assert drafter.draft(1)[0] == [24]


def test_guesses_that_do_not_come_true_are_no_longer_offered_until_they_would_have() -> None:
    draw = Random(0)
    drafter = Drafter(np.array([1, 2]))

    def offered(follows: Callable[[], int], times: int) -> int:
        count = 0
        for _ in range(times):
            for token in (1, 2):
                drafter.add(token)
            count += bool(drafter.draft(31)[0])
            drafter.add(follows())
        return count

    assert offered(lambda: draw.randrange(10, 10_000), 100) < 20
    assert offered(lambda: 7, 40) > 20


@given(
    rows=st.integers(1, 60),
    chances=st.lists(st.lists(st.floats(0.1, 1.0), max_size=31).map(lambda c: sorted(c, reverse=True)), max_size=8),
    dtype=st.sampled_from(["int8", "int4", "float32"]),
)
@settings(deadline=None, database=None)
def test_a_row_goes_to_a_draft_only_where_it_makes_a_pass_more_worth(
    rows: int, chances: list[list[float]], dtype: str
) -> None:
    rows = max(rows, len(chances))
    counts = shared_out(rows, chances, dtype)
    assert all(count <= len(likely) for count, likely in zip(counts, chances, strict=True))
    assert sum(counts) == 0 or rows + sum(counts) <= MOST_ROWS
    made, cost = len(chances) + sum(sum(c[:k]) for c, k in zip(chances, counts, strict=True)), rows + sum(counts)
    if sum(counts):
        assert made / pass_cost(cost, dtype) > len(chances) / pass_cost(rows, dtype)


def test_a_lone_certain_draft_is_long_and_many_sequences_leave_no_room_for_doubtful_ones() -> None:
    assert shared_out(1, [[1.0] * 31], "int8") == [31]
    assert shared_out(1, [[0.9**n for n in range(1, 32)]], "int8")[0] in range(3, 12)
    assert shared_out(1, [[0.12]], "int8") == [0]
    assert shared_out(16, [[0.7] * 31] * 16, "int8") == [0] * 16


def predicted(engine: Engine, tokenizer: Tokenizer, prompt: TokenIds = TWENTY) -> Wanted:
    """60 tokens of greedy text, of which the prediction is right."""
    greedy = GenerationParams(max_tokens=60, sampling=SamplingParams(temperature=0.0))
    wanted = Wanted(prompt, greedy)
    _, sequence = alone(engine, tokenizer, wanted)
    return replace(wanted, params=replace(greedy, most_drafted=31, prediction=sequence.ids[len(prompt) :]))


def test_a_right_prediction_saves_most_passes_and_is_counted(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine()
    wanted = predicted(engine, tokenizer)
    before = engine.forwards
    (result,), (sequence,) = run(Scheduler(engine, Pace(), 1), tokenizer, [wanted])
    passes = engine.forwards - before
    assert result.completion_tokens == 60
    assert passes < 20
    assert (sequence.accepted_tokens, sequence.rejected_tokens) == (60 - passes, 0)


def test_a_wrong_prediction_is_given_up(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine()
    wanted = predicted(engine, tokenizer)
    assert wanted.params.prediction is not None
    guess = np.array(wanted.params.prediction) + np.arange(60) // 5  # right in its first five tokens only
    wrong = replace(wanted, params=replace(wanted.params, prediction=guess))
    (result,), (sequence,) = run(Scheduler(engine, Pace(), 1), tokenizer, [wrong])
    assert result == alone(engine, tokenizer, wanted)[0]
    assert sequence.accepted_tokens <= 5
    assert 0 < sequence.rejected_tokens < 20


class TightEngine(DeterministicEngine):
    """Has pages for so many tokens that its caches hold together."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, steps: Any) -> list[Logits]:
        if sum(step.cache.length + len(step.ids) for step in steps) > self.tokens:
            raise OutOfPagesError("no more")
        return super().forward(steps)


def test_a_draft_takes_no_page_that_something_else_needs(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine()
    wanted = predicted(engine, tokenizer)
    stopped = replace(wanted, params=replace(wanted.params, stop=(alone(engine, tokenizer, wanted)[0].text[4:7],)))
    expected, sequence = alone(engine, tokenizer, stopped)
    assert expected.reason == "stop"
    tight = TightEngine(len(sequence.ids) - 1)
    (result,), _ = run(Scheduler(tight, Pace(), 1), tokenizer, [stopped])
    assert result == expected


def test_a_draft_is_not_tried_where_the_longer_pass_might_miss_the_deadline(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine()
    wanted = predicted(engine, tokenizer, prompt=np.array([10]))
    drafted = {}
    for seconds in (2.2, 300.0):
        scheduler = Scheduler(engine, Pace(first_pass=1.0), 1)
        deadline = Deadline(time.monotonic() + ANSWER_SECONDS + seconds)
        sequence = TokenSequence(tokenizer, wanted.prompt, wanted.params, deadline)
        scheduler.add(sequence)
        scheduler.step()  # the next one is expected to take 0.9 s, and counted twice
        scheduler.step()
        assert (sequence.finish_reason, sequence.completion_tokens) == (None, 2 + sequence.accepted_tokens)
        drafted[seconds] = sequence.drafted
        scheduler.cancel(sequence)
    assert drafted[2.2] == 0
    assert drafted[300.0] > 1


def test_passes_with_drafts_are_told_apart_from_passes_that_read(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine()
    wanted = predicted(engine, tokenizer)
    scheduler = Scheduler(engine, Pace(), 1)
    scheduler.add(TokenSequence(tokenizer, wanted.prompt, wanted.params))
    read, made = 0, 0
    while scheduler.busy:
        scheduler.step()
        assert scheduler.latest is not None
        read, made = read + scheduler.latest.prompt_rows, made + scheduler.latest.made
    assert (read, made) == (20, 60)


def test_nothing_is_guessed_in_a_pass_that_reads_a_prompt(tokenizer: Tokenizer) -> None:
    engine = DeterministicEngine(max_rows=128)
    wanted = predicted(engine, tokenizer)
    scheduler = Scheduler(engine, Pace(), 2)
    first = TokenSequence(tokenizer, wanted.prompt, wanted.params)
    scheduler.add(first)
    scheduler.step()
    second = TokenSequence(tokenizer, np.arange(10, 310), GenerationParams(max_tokens=1))
    scheduler.add(second)
    tried = []
    while second.finish_reason is None:
        scheduler.step()
        tried.append(first.drafted)
    scheduler.step()
    assert tried == [0, 0, 0]
    assert first.drafted > 0


def test_a_guess_ends_where_a_grammar_would_not_let_it_go_on(tokenizer: Tokenizer, grammars: Grammars) -> None:
    constraint = grammars.compiled(Grammar("regex", "a{3}b*c")).begin()
    a, b, c = (int(tokenizer.encode(letter)[0]) for letter in "abc")
    assert constraint.possible([a, a, a, b, a]) == [a, a, a, b]
    assert constraint.possible([b]) == []
    constraint.take(a)
    assert constraint.possible([a, a, b, c]) == [a, a, b, c]
