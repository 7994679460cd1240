"""Many sequences, one engine: each gets what it gets alone, whatever arrives, leaves or fails beside it."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from api.model import Model
from engines.base import PAGE_TOKENS, Engine, Logits, OutOfPagesError, Step, TokenIds
from generation.deadline import Deadline
from generation.pace import Pace
from generation.params import GenerationParams, SamplingParams
from generation.planner import PROMPT_ROWS_BESIDE_DECODING
from generation.prefix_cache import PrefixCache
from generation.scheduler import Scheduler
from generation.sequence import Piece
from generation.sequence import Sequence as TokenSequence
from generation.shared_prompt import SharedPrompt
from generation.tokenizer import Tokenizer
from model_loader import load_model
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, HistoryCache, read_tokenizer
from tests.generating import generate

MIXES = 300


@pytest.fixture(scope="module")
def tokenizer(llama_directory: Path) -> Tokenizer:
    return read_tokenizer(llama_directory)


class PagedEngine(DeterministicEngine):
    """A deterministic engine with a budget of pages, and errors where a test wants them."""

    def __init__(self, tokens: int = 1_000_000, max_rows: int = 512) -> None:
        super().__init__(max_rows=max_rows)
        self.total_tokens = tokens
        self.caches: list[HistoryCache] = []
        self.steps: list[list[int]] = []
        """Rows of each step of each pass."""
        self.fails: Callable[[Sequence[Step]], Exception | None] = lambda steps: None

    def new_cache(self, pages: Sequence[int] = ()) -> HistoryCache:
        cache = _Cache(self)
        self.caches.append(cache)
        return cache

    @property
    def free_tokens(self) -> int:
        return self.total_tokens - sum(_pages(cache.length) for cache in self.caches) * PAGE_TOKENS

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        wanted = sum(_pages(s.cache.length + len(s.ids)) - _pages(s.cache.length) for s in steps)
        if wanted * PAGE_TOKENS > self.free_tokens:
            raise OutOfPagesError
        if (error := self.fails(steps)) is not None:
            raise error
        self.steps.append([len(step.ids) for step in steps])
        return super().forward(steps)


class _Cache(HistoryCache):
    """A cache whose forks count, too."""

    def __init__(self, engine: PagedEngine, states: Sequence[int] = ()) -> None:
        super().__init__(states)
        self._engine = engine

    def fork(self) -> HistoryCache:
        forked = _Cache(self._engine, self.states)
        self._engine.caches.append(forked)
        return forked


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS)


def params(max_tokens: int = 8, seed: int | None = None) -> GenerationParams:
    sampling = SamplingParams(temperature=0.0) if seed is None else SamplingParams(seed=seed)
    return GenerationParams(max_tokens=max_tokens, sampling=sampling)


def prompt_of(length: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(1, 300, length)


class Run:
    """A scheduler, and what came of its sequences."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, most_running: int = 16, prefixes: PrefixCache | None = None
    ) -> None:
        self.scheduler = Scheduler(engine, Pace(), most_running, prefixes)
        self.tokenizer = tokenizer
        self.pieces: dict[TokenSequence, list[Piece]] = {}
        self.errors: dict[TokenSequence, Exception] = {}

    def add(
        self,
        prompt: TokenIds,
        params: GenerationParams,
        shared: SharedPrompt | None = None,
        deadline: Deadline | None = None,
    ) -> TokenSequence:
        sequence = TokenSequence(self.tokenizer, prompt, params, deadline)
        self.pieces[sequence] = []
        self.scheduler.add(sequence, shared)
        return sequence

    def step(self) -> None:
        for outcome in self.scheduler.step():
            if isinstance(outcome.result, Exception):
                self.errors[outcome.sequence] = outcome.result
            else:
                self.pieces[outcome.sequence].append(outcome.result)

    def finish(self) -> None:
        passes = 0
        while self.scheduler.busy:
            self.step()
            passes += 1
            assert passes < 10_000, "the scheduler makes no progress"

    def text(self, sequence: TokenSequence) -> str:
        return "".join(piece.text for piece in self.pieces[sequence])


def alone(tokenizer: Tokenizer, prompt: TokenIds, wanted: GenerationParams) -> list[Piece]:
    return list(generate(DeterministicEngine(), tokenizer, prompt, wanted))


def test_a_pass_decodes_everyone_and_reads_a_budget_of_a_newcomer_s_prompt(tokenizer: Tokenizer) -> None:
    engine = PagedEngine()
    run = Run(engine, tokenizer)
    run.add(prompt_of(20), params(40))
    run.add(prompt_of(30), params(40))
    run.step()
    run.add(prompt_of(300), params(40))
    for _ in range(4):
        run.step()
    assert engine.steps == [[20, 30], [1, 1, 128], [1, 1, 128], [1, 1, 44], [1, 1, 1]]


def test_without_anyone_to_wait_a_prompt_is_read_in_passes_as_large_as_the_engine_takes(tokenizer: Tokenizer) -> None:
    engine = PagedEngine(max_rows=200)
    run = Run(engine, tokenizer)
    run.add(prompt_of(500), params(1))
    run.finish()
    assert engine.steps == [[200], [200], [100]]


def test_first_come_first_served(tokenizer: Tokenizer) -> None:
    run = Run(PagedEngine(), tokenizer, most_running=2)
    sequences = [run.add(prompt_of(10, seed), params(5)) for seed in range(5)]
    begun: list[TokenSequence] = []
    while run.scheduler.busy:
        run.step()
        begun += [s for s in sequences if s.begun_at is not None and s not in begun]
        assert sum(s.cache is not None for s in sequences) <= 2
    assert begun == sequences


def test_choices_of_one_prompt_read_it_once(tokenizer: Tokenizer) -> None:
    engine, prompt = PagedEngine(), prompt_of(100)
    run = Run(engine, tokenizer, most_running=3)
    shared = SharedPrompt(8)
    sequences = [run.add(prompt, params(6, seed), shared) for seed in range(8)]
    run.finish()
    assert sum(row for rows in engine.steps for row in rows if row > 1) == 100
    for seed, sequence in enumerate(sequences):
        assert run.pieces[sequence] == alone(tokenizer, prompt, params(6, seed))
    assert engine.free_tokens == engine.total_tokens


def test_out_of_pages_the_youngest_waits_and_says_the_same_in_the_end(tokenizer: Tokenizer) -> None:
    engine = PagedEngine(tokens=160)
    run = Run(engine, tokenizer)
    prompts = [prompt_of(40, seed) for seed in range(3)]
    sequences = [run.add(prompt, params(60, seed)) for seed, prompt in enumerate(prompts)]
    run.finish()
    assert not run.errors
    for seed, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
        assert run.pieces[sequence] == alone(tokenizer, prompt, params(60, seed))
    assert sum(sum(rows) for rows in engine.steps) > 3 * 100  # some were read twice
    assert engine.free_tokens == engine.total_tokens


def test_what_never_fits_is_refused_and_takes_nobody_along(tokenizer: Tokenizer) -> None:
    run = Run(PagedEngine(tokens=64), tokenizer)
    too_long = run.add(prompt_of(64), params(4))
    grows_too_long = run.add(prompt_of(40), params(60))
    fits = run.add(prompt_of(40, seed=1), params(5))
    run.finish()
    assert set(run.errors) == {too_long, grows_too_long}
    assert all(isinstance(error, OutOfPagesError) for error in run.errors.values())
    assert run.text(fits) == "".join(p.text for p in alone(tokenizer, prompt_of(40, seed=1), params(5)))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("broken")])
def test_an_error_in_a_pass_ends_only_the_sequence_that_fails_alone(tokenizer: Tokenizer, error: Exception) -> None:
    engine = PagedEngine()
    run = Run(engine, tokenizer)
    sequences = [run.add(prompt_of(10, seed), params(9, seed)) for seed in range(5)]
    for _ in range(3):
        run.step()
    victim = sequences[2].cache
    engine.fails = lambda steps: error if any(step.cache is victim for step in steps) else None
    run.finish()
    assert run.errors == {sequences[2]: error}
    for seed in (0, 1, 3, 4):
        assert run.pieces[sequences[seed]] == alone(tokenizer, prompt_of(10, seed), params(9, seed))


def test_a_failed_pass_that_succeeds_step_by_step_ends_nobody(tokenizer: Tokenizer) -> None:
    engine = PagedEngine()
    engine.fails = lambda steps: MemoryError() if len(steps) > 1 else None
    run = Run(engine, tokenizer)
    sequences = [run.add(prompt_of(10, seed), params(4, seed)) for seed in range(3)]
    run.finish()
    assert not run.errors
    assert [len(run.pieces[sequence]) for sequence in sequences] == [4, 4, 4]


def test_a_cancelled_sequence_is_gone_before_the_next_pass(tokenizer: Tokenizer) -> None:
    engine = PagedEngine()
    run = Run(engine, tokenizer)
    kept, dropped = (run.add(prompt_of(10, seed), params(9)) for seed in range(2))
    run.step()
    run.scheduler.cancel(dropped)
    run.step()
    assert engine.steps == [[10, 10], [1]]
    run.finish()
    assert (len(run.pieces[kept]), len(run.pieces[dropped])) == (9, 1)
    assert engine.free_tokens == engine.total_tokens


def test_a_reader_that_is_cancelled_leaves_the_prompt_to_the_next(tokenizer: Tokenizer) -> None:
    engine = PagedEngine(max_rows=64)
    run, shared, prompt = Run(engine, tokenizer), SharedPrompt(3), prompt_of(100)
    sequences = [run.add(prompt, params(3, seed), shared) for seed in range(3)]
    run.step()
    run.scheduler.cancel(sequences[0])
    run.finish()
    for seed in (1, 2):
        assert run.pieces[sequences[seed]] == alone(tokenizer, prompt, params(3, seed))
    assert engine.free_tokens == engine.total_tokens


def test_a_prompt_that_cannot_be_read_in_time_is_answered_before_it_is_read(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(monkeypatch)
    engine = PagedEngine()
    engine.fails = lambda steps: clock.advance(0.001 * sum(len(step.ids) for step in steps))
    run = Run(engine, tokenizer)
    run.add(prompt_of(100), params(1))
    run.finish()  # now a token of a prompt is known to take a millisecond
    enough = run.add(prompt_of(300), params(1), deadline=Deadline(clock.now + 0.9))
    run.finish()
    passes = len(engine.steps)
    hopeless = run.add(prompt_of(300), params(1), deadline=Deadline(clock.now + 0.45))
    run.finish()
    assert [piece.finish_reason for piece in run.pieces[enough]] == ["length"]
    assert run.pieces[hopeless] == [Piece("", (), 0, "deadline")]
    assert hopeless.begun_at is not None
    assert len(engine.steps) == passes


def test_a_first_prompt_of_unknown_cost_is_read_in_pieces_that_its_time_allows(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(monkeypatch)
    engine = PagedEngine()
    engine.fails = lambda steps: clock.advance(0.01 * sum(len(step.ids) for step in steps))
    run = Run(engine, tokenizer)
    run.scheduler = Scheduler(engine, Pace(first_pass=0.01), most_running=1)
    deadline = clock.now + 1.2
    cut = run.add(prompt_of(400), params(1), deadline=Deadline(deadline))
    run.finish()
    assert run.pieces[cut] == [Piece("", (), 0, "deadline")]
    assert clock.now < deadline
    assert len(engine.steps) == 1


def test_a_prompt_beside_a_sequence_that_is_nearly_out_of_time_is_read_in_smaller_pieces(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(monkeypatch)
    engine = PagedEngine()
    engine.fails = lambda steps: clock.advance(0.001 * sum(len(step.ids) for step in steps))
    run = Run(engine, tokenizer)
    run.add(prompt_of(100), params(1))
    run.finish()
    deadline = clock.now + 0.4
    hurried = run.add(prompt_of(20), params(600), deadline=Deadline(deadline))
    run.step()
    run.add(prompt_of(500), params(1))
    while hurried.finish_reason is None:
        run.step()
        assert clock.now <= deadline - 0.2 + 0.01
    assert max(rows[-1] for rows in engine.steps[2:]) < PROMPT_ROWS_BESIDE_DECODING + 1
    run.finish()


class _Clock:
    """The time as the scheduler sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("generation.scheduler.time.monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("part", range(4))
def test_random_mixes_give_each_sequence_what_it_gets_alone(tokenizer: Tokenizer, part: int) -> None:
    """Random arrivals, lengths, sharing, budgets, cancellations and failures against one at a time."""
    expected: dict[tuple[int, int, int], list[Piece]] = {}
    for mix in range(part, MIXES, 4):
        random = Random(mix)
        engine = PagedEngine(tokens=random.choice([256, 400, 100_000]), max_rows=random.choice([7, 40, 200, 512]))
        run = Run(engine, tokenizer, most_running=random.choice([1, 2, 5, 16]))
        plan: dict[TokenSequence, tuple[int, int, int]] = {}
        cancelled: set[TokenSequence] = set()
        failing: set[int] = set()
        engine.fails = lambda steps, failing=failing: (  # type: ignore[misc]
            RuntimeError("fails") if any(int(step.ids[0]) % 97 in failing for step in steps) else None
        )
        to_come = random.randint(2, 12)
        while to_come or run.scheduler.busy:
            if to_come and random.random() < 0.4:
                to_come -= 1
                length, seed, made = random.choice([1, 5, 16, 60, 150]), random.randint(0, 9), random.randint(1, 12)
                prompt = prompt_of(length, seed)
                choices = random.choice([1, 1, 1, 3])
                shared = SharedPrompt(choices) if choices > 1 else None
                for choice in range(choices):
                    sequence = run.add(prompt, params(made, seed + choice), shared)
                    plan[sequence] = (length, seed, made * 100 + choice)
            if plan and random.random() < 0.05:
                dropped = random.choice(list(plan))
                run.scheduler.cancel(dropped)
                cancelled.add(dropped)
            if random.random() < 0.02:
                failing.add(random.randint(0, 96))
            run.step()
        for sequence, (length, seed, code) in plan.items():
            key = (length, seed, code)
            if key not in expected:
                expected[key] = alone(tokenizer, prompt_of(length, seed), params(code // 100, seed + code % 100))
            pieces = run.pieces[sequence]
            if sequence in cancelled or sequence in run.errors:
                assert pieces == expected[key][: len(pieces)]
            else:
                assert pieces == expected[key], f"mix {mix}"
        assert all(isinstance(error, RuntimeError) for error in run.errors.values())
        assert engine.free_tokens == engine.total_tokens, f"mix {mix} keeps pages"


@pytest.fixture(scope="module", params=["transformers", "compiled float32", "compiled int8"])
def model(request: pytest.FixtureRequest, llama_directory: Path, compiled: Callable[..., Path]) -> Model:
    """A real model on each engine. int4 is left out: docs/compiled-engine.md says when its texts differ."""
    if request.param == "transformers":
        loaded: Model = request.getfixturevalue("llama")
        return loaded
    if request.param == "compiled float32":
        return load_model(Settings(model_dir=str(request.getfixturevalue("llama_artifact"))))
    return load_model(Settings(model_dir=str(compiled(llama_directory, "int8"))))


def test_a_real_engine_says_in_any_mix_what_it_says_alone(model: Model) -> None:
    """Text and log-probabilities of seeded requests; on the compiled engines bit for bit."""
    random = Random(5)
    lengths = [1, 9, 16, 40, 47, 48, 127, 129, 140, 300]
    wanted = [
        (prompt_of(random.choice(lengths), i), replace(params(random.choice([4, 20]), i), logprobs=2))
        for i in range(16)
    ]
    expected = [list(generate(model.engine, model.tokenizer, prompt, own)) for prompt, own in wanted]
    exact = model.engine.name == "compiled"
    for mix in range(25 if exact else 4):
        random = Random(mix)
        scheduler = Scheduler(model.engine, Pace(), random.choice([2, 5, 16]))
        waiting = random.sample(range(len(wanted)), len(wanted))
        pieces: dict[int, list[Piece]] = {number: [] for number in waiting}
        numbers: dict[TokenSequence, int] = {}
        while waiting or scheduler.busy:
            if waiting and random.random() < 0.6:
                number = waiting.pop()
                sequence = TokenSequence(model.tokenizer, *wanted[number], Deadline(math.inf))
                numbers[sequence] = number
                scheduler.add(sequence)
            for outcome in scheduler.step():
                assert isinstance(outcome.result, Piece)
                pieces[numbers[outcome.sequence]].append(outcome.result)
        for number, alone_pieces in enumerate(expected):
            if exact:
                assert pieces[number] == alone_pieces
            else:
                assert "".join(p.text for p in pieces[number]) == "".join(p.text for p in alone_pieces)
