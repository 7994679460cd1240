"""Texts that follow a grammar: one of its own, whatever the sampling, and the same one alone or beside others."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence as Steps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from engines.base import PAGE_TOKENS, Logits, Step, TokenIds
from generation import constraint
from generation.constraint import MOST_FORCED, MOST_KEPT, Grammar, GrammarError, Grammars, Kind
from generation.deadline import Deadline
from generation.pace import Pace
from generation.params import GenerationParams, SamplingParams
from generation.scheduler import Scheduler
from generation.sequence import Piece, Sequence
from generation.tokenizer import REPLACEMENT, Tokenizer
from settings import ROOT
from tests.deterministic_engine import DeterministicEngine, read_tokenizer
from tests.generating import generate
from tests.test_scheduler import PagedEngine

PROMPT: TokenIds = np.arange(5, 45)
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "the name of the person": {"type": "string", "maxLength": 8},
            "kind": {"enum": ["quick brown fox", "lazy dog"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["the name of the person", "kind", "age"],
        "additionalProperties": False,
    }
)
WORDS = Grammar("regex", "[a-z]+( [a-z]+)*")


@pytest.fixture(scope="module")
def tokenizer(llama_directory: Path) -> Tokenizer:
    return read_tokenizer(llama_directory)


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, DeterministicEngine.vocab_size, [0])


class CountingEngine(DeterministicEngine):
    """It notes how many ids every pass was asked to take."""

    def __init__(self, max_rows: int) -> None:
        super().__init__(max_rows=max_rows)
        self.rows: list[int] = []

    def forward(self, steps: Steps[Step]) -> list[Logits]:
        self.rows.append(sum(len(step.ids) for step in steps))
        return super().forward(steps)


def following(grammars: Grammars, grammar: Grammar, seed: int = 0, **params: Any) -> GenerationParams:
    sampling = SamplingParams(temperature=1.5, top_p=0.95, frequency_penalty=0.5, seed=seed)
    asked = {"max_tokens": 300, "eos_ids": frozenset({0}), "sampling": sampling, **params}
    return GenerationParams(**asked, grammar=grammars.compiled(grammar))


def made(tokenizer: Tokenizer, params: GenerationParams, engine: DeterministicEngine | None = None) -> list[Piece]:
    return list(generate(engine or DeterministicEngine(), tokenizer, PROMPT, params))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("seed", range(20))
def test_a_text_is_one_of_the_schema_s_and_forced_tokens_need_no_pass(
    tokenizer: Tokenizer, grammars: Grammars, seed: int
) -> None:
    engine = DeterministicEngine()
    pieces = made(tokenizer, following(grammars, Grammar("json_schema", PERSON), seed), engine)
    person = json.loads(text_of(pieces))
    assert list(person) == ["the name of the person", "kind", "age"]
    assert len(person["the name of the person"]) <= 8
    assert person["kind"] in ("quick brown fox", "lazy dog")
    assert 0 <= person["age"] <= 120
    assert pieces[-1].finish_reason == "stop"
    assert engine.forwards < pieces[-1].completion_tokens / 2


@pytest.mark.parametrize("most", [4, 25, 200, None])
def test_what_is_looked_at_once_changes_nothing_of_what_can_come(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    bound = {} if most is None else {"maxLength": most}
    grammar = Grammar("json_schema", json.dumps({"type": "array", "items": {"type": "string", **bound}}))
    size = DeterministicEngine.vocab_size
    sliced = Grammars(tokenizer, size, [0]).compiled(grammar).begin()
    monkeypatch.setattr(constraint, "SLICES", [])
    plain = Grammars(tokenizer, size, [0]).compiled(grammar).begin()
    whole = '["the quick brown fox jumps", "\\n\\"", "日é🦊 the lazy dog and the river"]'
    for token in tokenizer.encode(whole).tolist():
        assert sliced.allowed(may_end=True) == plain.allowed(may_end=True)
        if not plain.possible([token]):
            assert most in (4, 25)
            return
        sliced.take(token)
        plain.take(token)
    assert most in (200, None)


@pytest.mark.parametrize("rows", [512, 16, 4])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_text_is_the_same_however_it_is_fed_and_beside_whatever(
    tokenizer: Tokenizer, grammars: Grammars, rows: int, logprobs: int | None
) -> None:
    asked = [
        following(grammars, grammar, seed, logprobs=logprobs)
        for seed in range(3)
        for grammar in (Grammar("json_schema", PERSON), WORDS)
    ]
    free = GenerationParams(max_tokens=60, sampling=SamplingParams(seed=3), logprobs=logprobs)
    alone = [made(tokenizer, replace(params, logprobs=None)) for params in (*asked, free)]
    engine = CountingEngine(max_rows=rows)
    scheduler = Scheduler(engine, Pace(), most_running=4)
    together = {Sequence(tokenizer, PROMPT, params): list[Piece]() for params in (*asked, free)}
    for sequence in together:
        scheduler.add(sequence)
    for outcome in scheduler.drive():
        assert isinstance(outcome.result, Piece)
        together[outcome.sequence].append(outcome.result)
    assert [text_of(pieces) for pieces in together.values()] == [text_of(pieces) for pieces in alone]
    ends = [(pieces[-1].finish_reason, pieces[-1].completion_tokens) for pieces in together.values()]
    assert ends == [(pieces[-1].finish_reason, pieces[-1].completion_tokens) for pieces in alone]
    assert max(engine.rows) <= rows


@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_text_is_the_same_when_its_sequence_gave_its_pages_back(
    tokenizer: Tokenizer, grammars: Grammars, logprobs: int | None
) -> None:
    asked = [following(grammars, Grammar("json_schema", PERSON), seed, logprobs=logprobs) for seed in range(4)]
    alone = [made(tokenizer, params) for params in asked]
    engine = PagedEngine(tokens=2 * (len(PROMPT) + PAGE_TOKENS))
    scheduler = Scheduler(engine, Pace(), most_running=4)
    together = {Sequence(tokenizer, PROMPT, params): list[Piece]() for params in asked}
    for sequence in together:
        scheduler.add(sequence)
    for outcome in scheduler.drive():
        assert isinstance(outcome.result, Piece)
        together[outcome.sequence].append(outcome.result)
    read = [rows for step in engine.steps for rows in step if rows >= len(PROMPT)]
    assert len(read) > len(asked), "none was read again"
    for pieces, expected in zip(together.values(), alone, strict=True):
        assert text_of(pieces) == text_of(expected)
        assert [t for piece in pieces for t in piece.tokens] == [t for piece in expected for t in piece.tokens]


def test_every_token_has_the_model_s_own_log_probability_forced_or_drawn(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    pieces = made(tokenizer, following(grammars, Grammar("json_schema", PERSON), logprobs=2))
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == pieces[-1].completion_tokens
    text = text_of(pieces)
    shown = [(token.offset, tokenizer.token_text(token.id)) for token in tokens]
    assert all(text[offset:].startswith(own) for offset, own in shown if REPLACEMENT not in own)
    whole = np.concatenate([PROMPT, [token.id for token in tokens]])
    scored = GenerationParams(max_tokens=0, prompt_logprobs=True, logprobs=2)
    (piece,) = generate(DeterministicEngine(), tokenizer, whole, scored)
    read = piece.tokens[len(PROMPT) :]
    assert [(t.id, t.logprob, t.top) for t in tokens] == [(t.id, t.logprob, t.top) for t in read]


@pytest.mark.parametrize("most", range(1, 30, 4))
@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_text_that_max_tokens_cuts_has_as_many_and_says_length(
    tokenizer: Tokenizer, grammars: Grammars, most: int, logprobs: int | None
) -> None:
    grammar = Grammar("json_schema", PERSON)
    whole = text_of(made(tokenizer, following(grammars, grammar)))
    pieces = made(tokenizer, following(grammars, grammar, max_tokens=most, logprobs=logprobs))
    assert (pieces[-1].finish_reason, pieces[-1].completion_tokens) == ("length", most)
    assert whole.startswith(text_of(pieces))
    assert len([token for piece in pieces for token in piece.tokens]) == most


def test_a_deadline_cuts_a_text_too(tokenizer: Tokenizer, grammars: Grammars) -> None:
    sequence = Sequence(tokenizer, PROMPT, following(grammars, Grammar("json_schema", PERSON)), Deadline())
    scheduler = Scheduler(DeterministicEngine(), Pace(), most_running=1)
    scheduler.add(sequence)
    pieces = [outcome.result for _ in range(3) for outcome in scheduler.step()]
    sequence.deadline.limit(0.0)
    pieces += [outcome.result for outcome in scheduler.drive()]
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert isinstance(pieces[-1], Piece)
    assert pieces[-1].finish_reason == "deadline"


@pytest.mark.parametrize("choices", [["yes", "no"], ["yes", "yes, really"], ['"quoted" \\ \n é日🦊', "{x}"], ["", "a"]])
def test_a_choice_is_one_of_the_list(tokenizer: Tokenizer, grammars: Grammars, choices: list[str]) -> None:
    grammar = Grammar("choice", json.dumps(choices))
    texts = set()
    for seed in range(40):
        sampling = SamplingParams(temperature=2.0, seed=seed, logit_bias={0: 100.0})
        texts.add(text_of(made(tokenizer, following(grammars, grammar, sampling=sampling))))
    assert texts == set(choices)


@pytest.mark.parametrize(
    "pattern", [r"[a-z]{3,9}@[a-z]{2,5}\.(com|org)", r"\d{4}-\d{2}-\d{2}", "(the|a) (fox|dog)s?", "[日é🦊]{2,4}"]
)
def test_a_text_matches_the_whole_expression(tokenizer: Tokenizer, grammars: Grammars, pattern: str) -> None:
    for seed in range(10):
        text = text_of(made(tokenizer, following(grammars, Grammar("regex", pattern), seed)))
        assert re.fullmatch(pattern, text)


def test_a_lark_grammar_nests(tokenizer: Tokenizer, grammars: Grammars) -> None:
    grammar = Grammar("lark", 'start: sum\nsum: item ("+" item)?\nitem: /[0-9]/ | "(" sum ")"')
    for seed in range(10):
        pieces = made(tokenizer, following(grammars, grammar, seed))
        if pieces[-1].finish_reason == "stop":
            assert re.fullmatch(r"[0-9+()]+", text_of(pieces))
            assert isinstance(eval(text_of(pieces)), int)  # noqa: S307 (digits, plus signs and brackets)


def test_a_stop_string_counts_only_where_the_text_may_end(tokenizer: Tokenizer, grammars: Grammars) -> None:
    stops = (" ", '"', ":", ",", "}", "a", "fox")
    for seed in range(10):
        plain = Grammar("json_schema", PERSON)
        assert json.loads(text_of(made(tokenizer, following(grammars, plain, seed, stop=stops))))
        words = text_of(made(tokenizer, following(grammars, WORDS, seed, max_tokens=60)))
        stopped = made(tokenizer, following(grammars, WORDS, seed, max_tokens=60, stop=(" ",)))
        assert text_of(stopped) == words.partition(" ")[0]
        assert stopped[-1].finish_reason == ("stop" if " " in words else "length")


def test_a_text_that_is_read_in_pieces_may_end_where_it_may_when_read_at_once(grammars: Grammars) -> None:
    mark, rules = "<call>", 'start: word <[300]> word | word "<" word?\nword: /[a-z]+/'
    compiled = grammars.compiled(Grammar("lark", rules, ((mark, 300),)))
    draw = random.Random(1)
    for text in (f"fox{mark}dog", "fox<", "fox<cal", f"fox{mark}do.g"):
        ends = [compiled.reader().may_end_after(text[:end]) for end in range(1, len(text) + 1)]
        assert any(ends)
        for _ in range(20):
            reader, read = compiled.reader(), 0
            while read < len(text):
                more = text[read : read + draw.randint(1, 4)]
                read += len(more)
                assert reader.may_end_after(more) == ends[read - 1]


def test_the_end_of_sequence_comes_where_the_text_may_end_and_not_before_min_tokens(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    likely = SamplingParams(temperature=1.0, seed=1, logit_bias={0: 100.0 + 50.0})
    end = made(tokenizer, following(grammars, Grammar("regex", "[a-z]{3,60}"), sampling=likely))
    assert 3 <= len(text_of(end)) <= 9
    assert end[-1].finish_reason == "stop"
    assert end[-1].end is None or end[-1].end.id == 0
    longer = made(tokenizer, following(grammars, Grammar("regex", "[a-z]{3,60}"), sampling=likely, min_tokens=12))
    assert longer[-1].completion_tokens in (12, 13)
    complete = made(tokenizer, following(grammars, Grammar("regex", "[a-z]{3}"), sampling=likely, min_tokens=12))
    assert len(text_of(complete)) == 3


def test_where_the_end_of_sequence_is_ignored_the_text_goes_on_as_long_as_it_can(
    tokenizer: Tokenizer, grammars: Grammars
) -> None:
    likely = SamplingParams(temperature=1.0, seed=1, logit_bias={0: 100.0 + 50.0})
    params = following(grammars, Grammar("regex", "[a-z]{3,9}"), sampling=likely, eos_ids=frozenset())
    pieces = made(tokenizer, params)
    assert (len(text_of(pieces)), pieces[-1].finish_reason) == (9, "stop")


REFUSED: list[tuple[Kind, Any, str]] = [
    ("json_schema", {"not": {"type": "string"}}, "it uses 'not', which is not supported"),
    (
        "json_schema",
        {"properties": {"a": {"items": {"uniqueItems": True, "contains": {}}}}},
        "it uses 'contains' and 'uniqueItems', which is not supported",
    ),
    ("json_schema", {"type": "string", "format": "idn-email"}, "Unknown format: idn-email"),
    (
        "json_schema",
        {"oneOf": [{"minimum": 1}, {"maximum": 5}]},
        "it uses 'oneOf' with alternatives that are not known to exclude each other, which is not supported",
    ),
    ("json_schema", {"type": "strin"}, "Invalid type: strin"),
    ("json_schema", {"type": "string", "minLength": 5, "maxLength": 3}, "minLength (5) is greater than maxLength (3)"),
    ("json_schema", {"$ref": "http://example.com/x"}, "http://example.com/x"),
    ("json_schema", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no text"),
    ("json_schema", {"enum": ["x" * 70_000]}, "it has more than 65536 characters"),
    ("regex", "(a", "unclosed group"),
    ("regex", "(?=a)b", "look-around"),
    ("regex", r"(a)\1", "backreferences"),
    ("regex", "(a{1000}){1000}", "too many expressions"),
    ("regex", "(" * 30_000 + ")" * 30_000, "nested parentheses"),
    ("lark", "strt: /a/", "no start rule"),
    ("lark", "start: " + "(" * 9000 + '"a"' + ")" * 9000, "too deeply nested"),
    ("lark", "start: a\na: b\nb: a", "no text"),
    ("lark", 'start: b{1000}\nb: c{1000}\nc: "a" "b"', "Too many items"),
    ("lark", 'start: %json {"not": {}}', "it uses 'not'"),
]


@pytest.mark.parametrize(("kind", "grammar", "said"), REFUSED)
def test_what_cannot_be_followed_is_told_why_before_any_text(
    grammars: Grammars, kind: Kind, grammar: Any, said: str
) -> None:
    text = grammar if isinstance(grammar, str) else json.dumps(grammar)
    with pytest.raises(GrammarError) as caught:
        grammars.compiled(Grammar(kind, text))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_grammar_is_compiled_once_and_no_more_are_kept_than_some(tokenizer: Tokenizer) -> None:
    grammars = Grammars(tokenizer, DeterministicEngine.vocab_size, [0])
    first = grammars.compiled(WORDS)
    for number in range(MOST_KEPT - 1):
        grammars.compiled(Grammar("choice", f'["{number}"]'))
    assert grammars.compiled(WORDS) is first
    for number in range(MOST_KEPT):
        grammars.compiled(Grammar("choice", f'["another {number}"]'))
    assert grammars.compiled(WORDS) is not first


def test_a_long_forced_text_is_fed_in_passes_of_so_many_tokens(tokenizer: Tokenizer, grammars: Grammars) -> None:
    text = "the quick brown fox " * 30
    engine = DeterministicEngine()
    pieces = made(tokenizer, following(grammars, Grammar("choice", json.dumps([text]))), engine)
    assert text_of(pieces) == text
    assert engine.forwards <= 2 + pieces[-1].completion_tokens // MOST_FORCED


def test_a_first_grammar_imports_llguidance_s_code_alone(llama_directory: Path) -> None:
    code = """
import sys
from pathlib import Path
from generation.constraint import Grammar, Grammars
from generation.tokenizer import Tokenizer
tokenizer = Tokenizer(Path(sys.argv[1]))
Grammars(tokenizer, 1000, [0]).compiled(Grammar("regex", "a"))
print("importlib.metadata" in sys.modules, "llguidance" in sys.modules)
import llguidance
from generation import grammar_library
print(llguidance.LLMatcher is grammar_library.LLMatcher, llguidance.__version__ != "")
"""
    command = [sys.executable, "-c", code, str(llama_directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True", "True"]


def test_a_package_without_that_module_is_imported_whole(tmp_path: Path) -> None:
    (tmp_path / "llguidance").mkdir()
    (tmp_path / "llguidance" / "__init__.py").write_text(
        "LLMatcher = LLParserLimits = LLTokenizer = regex_to_lark = 5\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from generation import grammar_library as found; "
    command = [sys.executable, "-c", f"{code}print(found.LLMatcher)"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "5\n"
