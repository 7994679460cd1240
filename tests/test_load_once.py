"""The point of the project: the model is loaded once per process, and what that saves."""

import importlib
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import model_loader
from api.model import Model
from settings import ROOT, Settings
from tests.file_opens import FileOpens
from tools.load_per_request import compare

THREADS = 16
ROUNDS = 5
REQUEST = {"prompt": "the fox", "max_tokens": 4}


@pytest.fixture
def settings(llama_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings for a process that has not loaded anything yet."""
    monkeypatch.setattr(model_loader, "_model", None)
    return Settings(model_dir=str(llama_directory), threads=1)


@pytest.fixture
def handler(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The handler module, imported as in a cold start."""
    monkeypatch.setenv("MODEL_DIR", settings.model_dir)
    monkeypatch.setenv("THREADS", "1")
    monkeypatch.delitem(sys.modules, "handler", raising=False)
    yield importlib.import_module("handler")
    sys.modules.pop("handler", None)


def context(request_id: str) -> Any:
    """What the runtime client passes beside the event."""
    return SimpleNamespace(
        function_name="test",
        memory_limit_in_mb=3008,
        invoked_function_arn="arn:aws:lambda:us-east-1:012345678912:function:test",
        aws_request_id=request_id,
        get_remaining_time_in_millis=lambda: 60_000,
    )


def one_load(settings: Settings) -> Counter[str]:
    """The checkpoint's files that one load opens, and how often."""
    with FileOpens(Path(settings.model_dir)) as opens:
        model_loader.load_model(settings)
        counted = opens.take()
    assert counted["model.safetensors"]
    assert counted["tokenizer.json"]
    return counted


def times(count: int, opens: Counter[str]) -> Counter[str]:
    return Counter({name: count * opened for name, opened in opens.items()})


def test_every_invocation_uses_the_same_objects(handler: ModuleType) -> None:
    model: Model = handler.MODEL
    held = (model, model.engine, model.tokenizer, handler.SERVICE, handler.SERVICE.model)
    network = model.engine.model  # type: ignore[attr-defined]
    storage = {name: weight.data_ptr() for name, weight in network.named_parameters()}
    for number in range(20):
        assert handler.lambda_handler(REQUEST, context(str(number)))["object"] == "text_completion"
        now = (handler.MODEL, model.engine, model.tokenizer, handler.SERVICE, handler.SERVICE.model)
        assert all(before is after for before, after in zip(held, now, strict=True))
        assert model_loader.get_model() is model
        assert model.engine.model is network  # type: ignore[attr-defined]
    assert {name: weight.data_ptr() for name, weight in network.named_parameters()} == storage


def test_threads_that_race_for_the_model_load_it_once(settings: Settings) -> None:
    expected = one_load(settings)
    barrier = threading.Barrier(THREADS)

    def race() -> Model:
        barrier.wait()
        return model_loader.get_model(settings)

    with FileOpens(Path(settings.model_dir)) as opens, ThreadPoolExecutor(THREADS) as pool:
        models = [future.result() for future in [pool.submit(race) for _ in range(THREADS)]]
        assert opens.take() == expected
    assert all(model is models[0] for model in models)


def test_threads_of_torch_that_wait_leave_their_cores_to_others(settings: Settings) -> None:
    """As OpenMP itself shows what it was told."""
    done = subprocess.run(
        [sys.executable, "-c", "import model_loader; model_loader.get_model()"],
        cwd=ROOT,
        env={**os.environ, "MODEL_DIR": settings.model_dir, "THREADS": "2", "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = dict(re.findall(r"(OMP_\w+) = '(\w+)'", done.stderr))
    assert shown["OMP_WAIT_POLICY"] == "PASSIVE"
    assert shown["OMP_NUM_THREADS"] == "2"


def test_a_load_per_request_reads_the_checkpoint_for_each_and_takes_longer(settings: Settings) -> None:
    expected = one_load(settings)
    with FileOpens(Path(settings.model_dir)) as opens:
        comparison = compare(settings, REQUEST, rounds=ROUNDS)
        # One for all the requests that load once; the rest for those that load each: the rounds and the uncounted one.
        assert opens.take() == times(1 + ROUNDS + 1, expected)
    assert comparison.loaded_per_request_first_token_ms > comparison.load_ms > 0
    assert comparison.loaded_per_request_first_token_ms > comparison.loaded_once_first_token_ms
    assert comparison.loaded_per_request_ms > comparison.loaded_once_ms
