"""One sequence: stops, seeds, deadlines, log-probabilities, and text that never splits a character."""

import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from api.model import Model
from engines.base import Logits, Step
from engines.transformers_engine import TransformersEngine
from generation.pace import ANSWER_SECONDS
from generation.params import GenerationParams, SamplingParams
from generation.sequence import Piece
from generation.stopping import StopMatcher
from tests.generating import generate

GREEDY = SamplingParams(temperature=0.0)


class ScriptCache:
    """The cache of ScriptedEngine: how far the script has come."""

    def __init__(self, length: int = 0) -> None:
        self.length = length
        self.pages: list[int] = []

    def truncate(self, length: int) -> None:
        self.length = length

    def fork(self) -> "ScriptCache":
        return ScriptCache(self.length)

    def close(self) -> None:
        self.length = 0


class ScriptedEngine:
    """A deterministic engine with the production interface: after any prompt it says `script`, token by token."""

    name, dtype, device = "scripted", "none", "cpu"
    context_length, max_rows = 1000, 4
    free_tokens = total_tokens = 1_000_000
    pool = None
    prefixes = ()

    def __init__(self, script: Sequence[int], vocab_size: int, seconds_per_token: float = 0.0) -> None:
        self.script, self.vocab_size, self.seconds_per_token = script, vocab_size, seconds_per_token
        self.prompt_length: int | None = None
        self.forwards = 0

    def new_cache(self, pages: Sequence[int] = ()) -> ScriptCache:
        return ScriptCache()

    def forward(self, steps: Sequence[Step]) -> list[Logits]:
        time.sleep(self.seconds_per_token * sum(len(step.ids) for step in steps))
        self.forwards += 1
        return [self._say(step) for step in steps]

    def _say(self, step: Step) -> Logits:
        step.cache.length += len(step.ids)
        said = 0 if self.prompt_length is None else step.cache.length - self.prompt_length
        logits = np.zeros((step.last, self.vocab_size), dtype=np.float32)
        logits[-1:, self.script[min(max(said, 0), len(self.script) - 1)]] = 20.0
        return logits


def say(model: Model, text: str, params: GenerationParams, deadline: float | None = None) -> list[Piece]:
    """Pieces of a generation in which the network says `text`, whatever the prompt."""
    engine = ScriptedEngine(model.tokenizer.encode(text).tolist(), model.engine.vocab_size)
    engine.prompt_length = 3
    return list(generate(engine, model.tokenizer, np.array([5, 6, 7]), params, deadline))


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


TEXT = "the quick 🦊 jumps over Zoë's 👩‍👩‍👧 and 日本 and runs"


def test_text_arrives_in_whole_characters(llama: Model) -> None:
    length = len(llama.tokenizer.encode(TEXT))
    pieces = say(llama, TEXT, GenerationParams(max_tokens=length, sampling=GREEDY))
    assert text_of(pieces) == TEXT
    assert all("\ufffd" not in piece.text for piece in pieces)


def test_text_cut_inside_a_character_leaves_its_beginning_out(llama: Model) -> None:
    whole = llama.tokenizer.encode("ab🦊").tolist()
    pieces = say(llama, "ab🦊", GenerationParams(max_tokens=len(whole) - 1, sampling=GREEDY))
    assert text_of(pieces) == "ab"


@pytest.mark.parametrize("stop", ["jump", "k 🦊", "s", "🦊", " and 日", "runs"])
def test_a_stop_string_ends_the_text_before_it_and_never_leaks(llama: Model, stop: str) -> None:
    pieces = say(llama, TEXT, GenerationParams(max_tokens=100, stop=(stop, "never said"), sampling=GREEDY))
    assert text_of(pieces) == TEXT[: TEXT.index(stop)]
    assert (pieces[-1].finish_reason, pieces[-1].stop_string) == ("stop", stop)
    assert pieces[-1].completion_tokens < 100


def test_the_beginning_of_a_stop_string_that_is_not_one_is_given_out(llama: Model) -> None:
    length = len(llama.tokenizer.encode(TEXT))
    pieces = say(llama, TEXT, GenerationParams(max_tokens=length, stop=("runs home",), sampling=GREEDY))
    assert text_of(pieces) == TEXT


def test_text_of_any_split_is_cut_where_the_whole_text_is_cut() -> None:
    text, stops = "aababaabcabab", ("abc", "baabb", "cab")
    expected = text[: min(text.find(stop) for stop in stops if stop in text)]
    for mask in range(2 ** (len(text) - 1)):
        matcher, got, piece = StopMatcher(stops), "", ""
        for i, character in enumerate(text):
            piece += character
            if mask >> i & 1 or i == len(text) - 1:
                got += "" if matcher.met is not None else matcher.add(piece)
                piece = ""
        assert got == expected


def test_what_may_end_a_text_is_asked_at_each_stop_string_and_told_every_character_once() -> None:
    text, stops = "aababaabcabab", ("ab", "cab")
    for mask in range(2 ** (len(text) - 1)):
        told: list[str] = []
        asked: list[str] = []

        def may_end(more: str, told: list[str] = told, asked: list[str] = asked) -> bool:
            told.append(more)
            asked.append("".join(told))
            return False

        matcher, got, piece = StopMatcher(stops, may_end), "", ""
        for i, character in enumerate(text):
            piece += character
            if mask >> i & 1 or i == len(text) - 1:
                got += matcher.skip(piece) if i == 3 else matcher.add(piece)
                piece = ""
        assert got + matcher.flush() == text
        searched = [at for at in range(len(text)) if text.startswith(stops, at)]
        assert set(asked) <= {text[:at] for at in searched}
        assert asked == sorted(asked, key=len)
        if not mask >> 3 & 1:  # nothing was skipped
            assert asked == [text[:at] for at in searched]


def test_tokens_belong_to_the_text_that_is_shown(llama: Model) -> None:
    params = GenerationParams(max_tokens=60, stop=("jump",), logprobs=0, sampling=GREEDY)
    pieces = say(llama, TEXT, params)
    tokens = [token for piece in pieces for token in piece.tokens]
    shown = TEXT[: TEXT.index("jump")]
    # The last one, " jumps", is there for its space; nothing after it is.
    assert llama.tokenizer.decode([token.id for token in tokens]) == shown + "jumps"
    assert max(token.offset for token in tokens) < len(shown)


def test_end_of_sequence_stops_after_min_tokens_only(llama: Model) -> None:
    engine = ScriptedEngine([0], llama.engine.vocab_size)  # always says <eos>
    prompt = np.array([5, 6, 7])

    def run(**options: int) -> Piece:
        params = GenerationParams(max_tokens=9, eos_ids=frozenset({0}), sampling=GREEDY, **options)  # type: ignore[arg-type]
        return list(generate(engine, llama.tokenizer, prompt, params))[-1]

    assert (run().finish_reason, run().completion_tokens) == ("stop", 1)
    assert (run(min_tokens=4).finish_reason, run(min_tokens=4).completion_tokens) == ("stop", 5)


def test_the_network_is_not_asked_for_logits_that_nobody_reads(llama: Model) -> None:
    engine = ScriptedEngine([7], llama.engine.vocab_size)
    list(generate(engine, llama.tokenizer, np.array([5, 6, 7]), GenerationParams(max_tokens=6, sampling=GREEDY)))
    assert engine.forwards == 1 + 5


def test_the_same_seed_gives_the_same_text_whatever_came_before(llama: Model) -> None:
    def sampled(seed: int | None) -> list[int]:
        params = GenerationParams(max_tokens=20, sampling=SamplingParams(seed=seed))
        pieces = generate(llama.engine, llama.tokenizer, np.array([9, 8]), params)
        return [token.id for piece in pieces for token in piece.tokens]

    first = sampled(7)
    assert sampled(None) != sampled(None)
    assert sampled(8) != first
    assert sampled(7) == first


def test_penalties_know_what_was_generated(llama: Model) -> None:
    engine = ScriptedEngine([7], llama.engine.vocab_size)  # always logit 20 for token 7, 0 for the others
    params = GenerationParams(max_tokens=4, sampling=SamplingParams(temperature=0.0, frequency_penalty=15.0))
    pieces = generate(engine, llama.tokenizer, np.array([7, 7]), params)
    assert [token.id for piece in pieces for token in piece.tokens] == [7, 7, 0, 1]


def test_log_probabilities_are_the_model_s_own(llama: Model) -> None:
    engine = llama.engine
    assert isinstance(engine, TransformersEngine)
    prompt = np.array([5, 6, 7, 9, 40, 41])
    sampling = SamplingParams(seed=3, temperature=1.7, logit_bias={12: 3.0})
    params = GenerationParams(max_tokens=8, logprobs=4, prompt_logprobs=True, sampling=sampling)
    tokens = [t for piece in generate(engine, llama.tokenizer, prompt, params) for t in piece.tokens]
    ids = [token.id for token in tokens]
    assert ids[: len(prompt)] == prompt.tolist()
    with torch.inference_mode():
        expected = torch.log_softmax(engine.model(torch.tensor([ids])).logits[0], dim=-1)
    assert tokens[0].logprob is None
    for position, token in enumerate(tokens[1:]):
        row = expected[position]
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        best = torch.topk(row, 4)
        assert [i for i, _ in token.top] == best.indices.tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_deadline_returns_what_there_is_before_it_passes(llama: Model) -> None:
    engine = ScriptedEngine([7], llama.engine.vocab_size, seconds_per_token=0.02)
    deadline = time.monotonic() + ANSWER_SECONDS + 0.5
    pieces = list(
        generate(engine, llama.tokenizer, np.array([5, 6]), GenerationParams(max_tokens=900, sampling=GREEDY), deadline)
    )
    assert time.monotonic() < deadline
    assert pieces[-1].finish_reason == "deadline"
    assert 1 <= pieces[-1].completion_tokens < 900


def test_a_slower_network_stops_earlier(llama: Model) -> None:
    """The margin is a multiple of the measured step: one step may not overrun what is left."""
    engine = ScriptedEngine([7], llama.engine.vocab_size, seconds_per_token=0.15)
    deadline = time.monotonic() + ANSWER_SECONDS + 0.8
    params = GenerationParams(max_tokens=900, sampling=GREEDY)
    list(generate(engine, llama.tokenizer, np.array([5]), params, deadline))
    assert time.monotonic() + 0.15 < deadline


def test_a_deadline_during_a_long_prompt_ends_between_its_pieces(llama: Model) -> None:
    engine = ScriptedEngine([7], llama.engine.vocab_size, seconds_per_token=0.02)
    deadline = time.monotonic() + ANSWER_SECONDS + 0.4
    pieces = list(
        generate(engine, llama.tokenizer, np.full(400, 5), GenerationParams(max_tokens=5, sampling=GREEDY), deadline)
    )
    assert [(piece.text, piece.finish_reason) for piece in pieces] == [("", "deadline")]
    assert engine.forwards < 100


def test_closing_the_generator_stops_the_network(llama: Model) -> None:
    engine = ScriptedEngine([7], llama.engine.vocab_size)
    pieces = generate(engine, llama.tokenizer, np.array([5]), GenerationParams(max_tokens=50, sampling=GREEDY))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert engine.forwards == 1
