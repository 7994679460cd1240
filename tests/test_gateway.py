"""tools/gateway.py as a Function URL that streams, with OpenAI's own client before it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.gate import Gate
from tests.test_streaming import FUNCTION
from tools.gateway import Gateway
from tools.local_function import LocalFunction

CHAT: dict[str, Any] = {"model": "deterministic", "messages": [{"role": "user", "content": "a"}], "temperature": 0}


@pytest.fixture(scope="module")
def gate_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate") / "gate"


@pytest.fixture(scope="module")
def url(gate_path: Path) -> Iterator[str]:
    with (
        LocalFunction({"STREAMING_DOORS": "function-url", "GATE": str(gate_path)}, FUNCTION) as function,
        Gateway(function.start, "function-url") as gateway,
    ):
        yield gateway.url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def gate(gate_path: Path) -> Iterator[Gate]:
    with Gate(gate_path) as gate:
        yield gate


def test_the_openai_client_sees_each_token_when_it_is_made(client: openai.OpenAI, gate: Gate) -> None:
    gate.open()
    stream: Any = client.chat.completions.create(**CHAT, max_tokens=4, logit_bias={"70": 100}, stream=True)
    parts = iter(stream)
    assert next(parts).choices[0].delta.role == "assistant"
    assert next(parts).choices[0].delta.content
    for _ in range(3):
        assert gate.left() == 0, "nothing more was computed"
        gate.open()
        part = next(parts)
        assert part.choices[0].delta.content
    assert part.choices[0].finish_reason == "length"
    assert list(parts) == []


def test_a_client_that_leaves_ends_the_generation(client: openai.OpenAI, gate: Gate, url: str) -> None:
    gate.open(2)
    stream: Any = client.chat.completions.create(**CHAT, max_tokens=500, stream=True)
    next(iter(stream))
    stream.close()
    gate.open(600)
    assert httpx2.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 1}, timeout=60).status_code == 200
    assert gate.left() > 300


def test_a_stream_that_fails_is_an_error_for_the_client(client: openai.OpenAI, gate: Gate, url: str) -> None:
    gate.open(2)
    gate.open(1, b"m")
    stream: Any = client.chat.completions.create(**CHAT, max_tokens=9, stream=True)
    with pytest.raises(openai.APIError, match="ran out of memory"):
        list(stream)
    assert json.loads(httpx2.get(f"{url}/health").content) == {"status": "ok"}
