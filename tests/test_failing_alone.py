"""An error that one request meets ends that one: those beside it get what they get alone, and no page is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.model import Model
from api.response_types import Timings, Usage
from api.schema import CompletionRequest
from api.service import Service
from api.validation import validate
from engines import compiled_engine
from engines.base import token_ids
from engines.compiled_engine import CompiledEngine
from engines.native_rows import NativeRows
from generation.deadline import Deadline
from generation.prefix_cache import PrefixCache
from generation.sequence import Sequence
from generation.shared_prompt import SharedPrompt
from generation.tokenizer import Tokenizer
from server.metrics import Metrics
from tests.deterministic_engine import read_tokenizer
from tests.generating import generate
from tests.running_server import wait_until
from tests.test_scheduler import Run, params
from tests.test_server import Bench

MARK = 300
"""The first token of the prompt that meets an error."""
FAULT = RuntimeError("a fault of ours")


@pytest.fixture(scope="module")
def tokenizer(llama_directory: Path) -> Tokenizer:
    return read_tokenizer(llama_directory)


class Trio:
    """Three sequences on a compiled engine that keeps what they read. The second is to fail."""

    def __init__(self, artifact: Path, tokenizer: Tokenizer, pages: int = 1000) -> None:
        self.engine = compiled_engine.load(artifact, threads=1)
        self.engine.pool.most = pages
        self.prefixes = PrefixCache(self.engine, 100)
        self.run = Run(self.engine, tokenizer, 4, self.prefixes)
        prompts = [token_ids([first, *range(5, 68)]) for first in (1, MARK, 2)]
        self.sequences = [self.run.add(prompt, params(40), deadline=Deadline()) for prompt in prompts]
        self.victim = self.sequences[1]
        self._alone = compiled_engine.load(artifact, threads=1)

    def check(self, error: Exception) -> None:
        """Drive them to their ends. The victim's is `error`, the others' is their own, and every page is free."""
        self.run.finish()
        assert self.run.errors == {self.victim: error}
        for sequence in self.sequences:
            expected = list(generate(self._alone, self.run.tokenizer, sequence.prompt, params(40)))
            assert self.run.pieces[sequence] == (
                expected if sequence is not self.victim else expected[: len(self.run.pieces[sequence])]
            )
        self.prefixes.evict(1000)
        assert self.engine.free_tokens == self.engine.total_tokens


@pytest.fixture
def trio(llama_artifact: Path, tokenizer: Tokenizer) -> Trio:
    return Trio(llama_artifact, tokenizer)


def fails(error: Exception, when: Callable[..., bool] = lambda *_: True, otherwise: Any = None) -> Callable[..., Any]:
    """A function that meets `error` for the arguments that `when` tells, and else is `otherwise`."""

    def function(*arguments: Any) -> Any:
        if when(*arguments):
            raise error
        return otherwise(*arguments)

    return function


def is_marked(ids: Any, *_: Any) -> bool:
    return bool(ids[0] == MARK)


@pytest.mark.parametrize("error", [FAULT, MemoryError()])
@pytest.mark.parametrize("method", ["count", "find"])
def test_looking_for_what_was_read_before_fails_alone(
    trio: Trio, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    monkeypatch.setattr(trio.prefixes, method, fails(error, is_marked, getattr(trio.prefixes, method)))
    trio.check(error)


@pytest.mark.parametrize("method", ["begin_with", "begun", "accept", "made"])
def test_a_sequence_fails_alone(trio: Trio, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(trio.victim, method, fails(FAULT))
    trio.check(FAULT)


@pytest.mark.parametrize("passes", [0, 3])
def test_an_end_without_another_token_fails_alone(trio: Trio, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    for _ in range(passes):
        trio.run.step()
    monkeypatch.setattr(trio.victim, "end", fails(FAULT))
    trio.victim.deadline.limit(0.0)
    trio.check(FAULT)


@pytest.mark.parametrize("passes", [0, 3])
def test_keeping_what_was_read_fails_alone(trio: Trio, monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    """GIVEN an error in keeping a prompt, or after some passes a completion, THEN it is its own sequence's."""
    for _ in range(passes):
        trio.run.step()
    monkeypatch.setattr(trio.prefixes, "keep", fails(FAULT, is_marked, trio.prefixes.keep))
    trio.check(FAULT)


def test_no_memory_to_keep_what_was_read_is_nobody_s_error(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.prefixes, "keep", fails(MemoryError()))
    trio.run.finish()
    assert trio.run.errors == {}
    assert trio.engine.free_tokens == trio.engine.total_tokens


def test_making_room_fails_alone(llama_artifact: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    trio = Trio(llama_artifact, tokenizer, pages=18)
    trio.victim = trio.sequences[2]  # the youngest gives its pages back
    trio.run.step()
    monkeypatch.setattr(trio.victim, "make_room", fails(FAULT))
    trio.check(FAULT)


def test_what_a_cancelled_sequence_read_and_cannot_be_kept_is_nobody_s_error(
    trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio.run.step()
    monkeypatch.setattr(trio.prefixes, "keep", fails(FAULT, is_marked, trio.prefixes.keep))
    trio.run.scheduler.cancel(trio.victim)
    trio.run.finish()
    trio.prefixes.evict(1000)
    assert trio.run.errors == {}
    assert trio.engine.free_tokens == trio.engine.total_tokens


def choices(engine: CompiledEngine, tokenizer: Tokenizer) -> tuple[Run, SharedPrompt, list[Sequence]]:
    """Three that continue one prompt."""
    run, shared, prompt = Run(engine, tokenizer), SharedPrompt(3), token_ids(list(range(5, 68)))
    return run, shared, [run.add(prompt, params(8, seed), shared) for seed in range(3)]


@pytest.fixture
def engine(llama_artifact: Path) -> CompiledEngine:
    return compiled_engine.load(llama_artifact, threads=1)


def test_a_choice_that_cannot_fork_its_prompt_fails_alone(
    engine: CompiledEngine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shared, sequences = choices(engine, tokenizer)
    monkeypatch.setattr(shared, "fork_for", fails(FAULT, lambda own: own is sequences[1], shared.fork_for))
    run.finish()
    assert run.errors == {sequences[1]: FAULT}
    assert [sequence.completion_tokens for sequence in sequences] == [8, 0, 8]
    assert engine.free_tokens == engine.total_tokens


def test_choices_read_a_prompt_themselves_where_there_is_no_memory_to_share_it(
    engine: CompiledEngine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, sequences = choices(engine, tokenizer)
    monkeypatch.setattr(NativeRows, "copy", fails(MemoryError()))
    run.finish()
    assert run.errors == {}
    assert [sequence.completion_tokens for sequence in sequences] == [8, 8, 8]
    assert engine.free_tokens == engine.total_tokens


def test_a_reply_that_cannot_be_reported_fails_alone(llama: Model) -> None:
    def report(usage: Usage, timings: Timings) -> None:
        if usage["completion_tokens"] == 5:
            raise FAULT

    service = Service(llama, report=report)

    def asked(tokens: int) -> Any:
        body = {"prompt": "the fox", "max_tokens": tokens, "ignore_eos": True}
        return lambda: service.prepare(validate(CompletionRequest, body))

    first, second, third = service.respond_all([asked(4), asked(5), asked(6)])
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert second is FAULT
    assert [answer["usage"]["completion_tokens"] for answer in (first, third)] == [4, 6]


def test_a_reply_whose_end_fails_keeps_neither_its_place_nor_the_thread(
    llama_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "record_generation", fails(FAULT))
        bench = Bench(llama_directory, stepped=True, concurrency=1, queue_length=1)
    with bench:
        connection = bench.raw({"prompt": "the fox", "max_tokens": 500})
        wait_until(lambda: bench.steps.waiting == 1, "the request runs")
        connection.close()
        wait_until(lambda: bench.metric("causal_lm_disconnects_total") == 1, "the server has seen that")
        bench.steps.open()
        wait_until(lambda: bench.serving.admission.admitted == 0, "its place is free")
        assert "a fault of ours" in caplog.text
        assert bench.complete(max_tokens=2).status_code == 500
