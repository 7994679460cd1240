"""Requests that run at once give exactly what each gives alone, however their threads take turns."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.answers import Answer
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.running_server import PATIENCE

MOST_AT_ONCE = 4
REQUESTS: Sequence[dict[str, Any]] = [
    {"prompt": "the quick brown fox", "max_tokens": 5, "seed": 1},
    {"prompt": "the quick brown fox", "max_tokens": 5, "seed": 2},
    {"prompt": "the lazy dog 🐕", "max_tokens": 6, "seed": 1, "logprobs": 2, "echo": True},
    {"prompt": ["a", "b"], "n": 2, "max_tokens": 2, "seed": 9, "top_p": 0.8},
    {"prompt": "a river", "max_tokens": 6, "temperature": 0, "stop": ["e", "t"]},
    {"prompt": "a river", "max_tokens": 5, "temperature": 0, "repetition_penalty": 1.5, "frequency_penalty": 1},
    {"prompt": [5, 6, 7], "max_tokens": 4, "seed": -3, "logit_bias": {"70": 60.0, "71": 60.0}},
    {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "seed": 4, "logprobs": True, "top_logprobs": 3},
    {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0, "presence_penalty": 2},
]


class Turns:
    """Grants forward passes in one given order of threads; once that is used up, or its thread is done, to anyone."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = list(order)
        self._done: set[int] = set()
        self._changed = threading.Condition()
        self._me = threading.local()

    def enter(self, number: int) -> None:
        """This thread is `number` of the order."""
        self._me.number = number

    def leave(self) -> None:
        """This thread will ask for nothing any more."""
        with self._changed:
            self._done.add(self._me.number)
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when it is this thread's turn."""
        with self._changed:
            assert self._changed.wait_for(self._mine, PATIENCE)
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def _mine(self) -> bool:
        while self._order and self._order[0] in self._done:
            self._order.pop(0)
        return not self._order or self._order[0] == self._me.number


def answer(service: Service, body: dict[str, Any]) -> Answer:
    """The answer without what differs from one time to the next."""
    request = validate(ChatRequest, body) if "messages" in body else validate(CompletionRequest, body)
    given = service.respond(service.prepare(request))
    return {name: value for name, value in given.items() if name not in ("id", "created", "timings")}


@pytest.fixture(scope="module")
def deterministic(llama_directory: Path) -> Model:
    return deterministic_model(read_tokenizer(llama_directory), DeterministicEngine())


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        yield pool


@given(data=st.data())
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_however_threads_take_turns_each_request_gets_what_it_gets_alone(
    deterministic: Model, pool: ThreadPoolExecutor, data: st.DataObject
) -> None:
    bodies = data.draw(st.lists(st.sampled_from(REQUESTS), min_size=2, max_size=MOST_AT_ONCE))
    order = data.draw(st.lists(st.integers(0, len(bodies) - 1), max_size=24))
    engine, service = deterministic.engine, Service(deterministic)
    assert isinstance(engine, DeterministicEngine)
    turns = Turns(order)

    def run(number: int) -> Answer:
        turns.enter(number)
        try:
            return answer(service, bodies[number])
        finally:
            turns.leave()

    engine.before_forward = turns.wait
    try:
        together = list(pool.map(run, range(len(bodies))))
    finally:
        engine.before_forward = lambda: None
    assert together == [alone(service, body) for body in bodies]


ALONE: dict[str, Answer] = {}


def alone(service: Service, body: dict[str, Any]) -> Answer:
    """The answer to a request that nothing else runs beside; computed once."""
    key = repr(body)
    if key not in ALONE:
        ALONE[key] = answer(service, body)
    return ALONE[key]


def test_the_real_engine_keeps_threads_apart(llama: Model) -> None:
    service = Service(llama)
    bodies = [
        {"prompt": f"story {number}", "max_tokens": 12, "seed": number, "temperature": number % 3 / 2}
        for number in range(16)
    ]
    expected = [answer(service, body) for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda body: answer(service, body), bodies)) == expected


ALPHABET = st.sampled_from(["a", "b", "e", " ", "\n", "é", "日", "🦊", "👨‍👩‍👧", "\u0301", "data: ", "[DONE]"])
TEXTS = st.lists(ALPHABET, max_size=20).map("".join)


@given(
    said=TEXTS.filter(bool),
    prompt=TEXTS.filter(bool),
    stops=st.lists(st.lists(ALPHABET, min_size=1, max_size=3).map("".join), max_size=4),
    seed=st.integers(-5, 5),
    sampled=st.booleans(),
    echo=st.booleans(),
    logprobs=st.none() | st.integers(0, 5),
    max_tokens=st.integers(1, 60),
    n=st.integers(1, 2),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_a_stream_joined_is_the_whole_answer(
    deterministic: Model, said: str, prompt: str, sampled: bool, **fields: Any
) -> None:
    """Half of the examples sample bytes at random, half say a text with characters of several bytes."""
    bias = {} if sampled else {str(token): 9.0 for token in deterministic.tokenizer.encode(said).tolist()}
    body = {"prompt": prompt, "stop": fields.pop("stops"), "logit_bias": bias, "temperature": 0.5, **fields}
    service = Service(deterministic)
    whole = answer(service, body)["choices"]
    parts = service.stream(service.prepare(validate(CompletionRequest, body | {"stream": True})))
    streamed = [part["choices"][0] for part in parts if part is not None]
    for choice in whole:
        own = [part for part in streamed if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        assert not any(stop in choice["text"].removeprefix(prompt) for stop in body["stop"])
        if choice["logprobs"] is not None:
            for name, values in choice["logprobs"].items():
                joined = [value for part in own for value in part["logprobs"][name] or []]
                assert joined == (values or [])
