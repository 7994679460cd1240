"""The server fuzzed from its own OpenAPI document by schemathesis: no 500, and every response as documented."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.keys import ApiKeys
from server.serving import Serving
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.running_server import served

KEY = "the-key"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "ignored_auth",
)


@pytest.fixture(scope="module")
def url(llama_directory: Path) -> Iterator[str]:
    """A server whose answers are short, so that many of them are had."""
    model = deterministic_model(read_tokenizer(llama_directory), DeterministicEngine(context_length=64))
    with served(Serving(model, Settings(max_tokens=8), ApiKeys([KEY]))) as url:
        yield url


def fuzz(url: str, examples: int, folder: Path, *options: str) -> None:
    """Examples, boundary values and random data, right and wrong, for the operations of the document."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS), "--mode", "all"),
        *("--max-examples", str(examples), "--seed", "1", "--header", f"Authorization: Bearer {KEY}"),
        *("--generation-database", "none", "--no-color", *options),
    ]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONWARNINGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


def test_every_response_is_as_documented(url: str, tmp_path: Path) -> None:
    fuzz(url, 8, tmp_path)


@pytest.mark.slow
def test_every_response_is_as_documented_for_long(url: str, tmp_path: Path) -> None:
    fuzz(url, 1000, tmp_path, "--max-time", "75")
