"""The server on the compiled engine with so few pages of the KV cache that requests do not fit beside each other."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

import model_loader
from engines import compiled_engine
from engines.base import PAGE_TOKENS, Step
from engines.compiled_engine import CompiledEngine
from engines.native_rows import NativeRows
from server.serving import Serving
from settings import Settings
from tests.running_server import PATIENCE, served, wait_until

PAGES = 12
CLIENTS = 16


class Held(CompiledEngine):
    """The engine, whose passes wait while a test has it `may_run` no more."""

    may_run: threading.Event

    def forward_natively(self, steps: Sequence[Step]) -> list[NativeRows]:
        assert self.may_run.wait(PATIENCE)
        return super().forward_natively(steps)


@pytest.fixture(scope="module")
def serving(llama_artifact: Path) -> Serving:
    settings = Settings(model_dir=str(llama_artifact))
    engine = compiled_engine.load(llama_artifact, threads=1)
    engine.__class__ = Held
    assert isinstance(engine, Held)
    engine.pool.most = PAGES  # before the first pass, which takes a slab of them
    engine.may_run = threading.Event()
    engine.may_run.set()
    return Serving(replace(model_loader.load_model(settings), engine=engine), settings)


@pytest.fixture(scope="module")
def url(serving: Serving) -> Iterator[str]:
    with served(serving) as base:
        yield base


def complete(url: str, prompt: list[int], **asked: Any) -> httpx2.Response:
    body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "ignore_eos": True, **asked}
    return httpx2.post(f"{url}/v1/completions", json=body, timeout=PATIENCE)


def metrics(url: str) -> dict[str, float]:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def test_a_prompt_that_never_fits_is_a_503_and_the_next_request_is_answered(url: str) -> None:
    refused = complete(url, [5] * (PAGES * PAGE_TOKENS + 1))
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "out_of_memory"
    assert "never fit" not in refused.text, "what the engine says is for the log"
    assert complete(url, [5] * 20).status_code == 200


def test_many_that_do_not_fit_together_get_the_texts_that_they_get_alone(url: str, serving: Serving) -> None:
    """12 pages are 192 tokens; each request needs 80 in the end."""
    prompts = [[7 + number, *range(20, 59)] for number in range(CLIENTS)]
    alone = [complete(url, prompt).json()["choices"][0]["text"] for prompt in prompts]
    assert len(set(alone)) > 1
    engine = serving.service.model.engine
    assert isinstance(engine, Held)
    engine.may_run.clear()
    with ThreadPoolExecutor(CLIENTS) as pool:
        waiting = pool.map(lambda prompt: complete(url, prompt), prompts)
        wait_until(lambda: serving.admission.admitted == CLIENTS, "all clients are there")
        engine.may_run.set()
        answers = list(waiting)
    assert [answer.status_code for answer in answers] == [200] * CLIENTS
    assert [answer.json()["choices"][0]["text"] for answer in answers] == alone


def test_what_passes_read_and_made_is_counted(url: str) -> None:
    before = metrics(url)
    prompt = [9, 8, 7] * 10
    assert complete(url, prompt, max_tokens=7).status_code == 200
    grown = {name: value - before.get(name, 0.0) for name, value in metrics(url).items()}
    assert grown["causal_lm_read_tokens_total"] == len(prompt)
    assert grown["causal_lm_made_tokens_total"] == 7
    assert grown["causal_lm_pass_sequences_count"] == grown["causal_lm_pass_seconds_count"] == 7, (
        "one reads, six decode"
    )
    assert grown['causal_lm_pass_sequences_bucket{le="1.0"}'] == 7
    assert grown["causal_lm_queue_seconds_count"] == 1
    after = metrics(url)
    assert after["causal_lm_cache_tokens_total"] == PAGES * PAGE_TOKENS
    assert after["causal_lm_cache_tokens_used"] == 0
    assert after["causal_lm_cache_tokens_kept"] % PAGE_TOKENS == 0 < after["causal_lm_cache_tokens_kept"]


def test_what_a_client_that_hung_up_held_is_no_longer_counted(url: str, serving: Serving) -> None:
    body = {"prompt": [9, 8, 7] * 10, "max_tokens": 100, "ignore_eos": True, "stream": True}
    with httpx2.stream("POST", f"{url}/v1/completions", json=body, timeout=PATIENCE) as answer:
        next(answer.iter_lines())
    wait_until(lambda: metrics(url)["causal_lm_cache_tokens_used"] == 0, "nothing is in use")
    assert serving.admission.admitted == 0
