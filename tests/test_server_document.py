"""docs/server.md does what it says: its commands and programs run against a server, as they stand there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server.serving import Serving
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.running_server import PATIENCE, ROOT, served

DOCUMENT = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
DOCUMENTED_URL = "http://127.0.0.1:8000"
PROGRAMS = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
CURLS = re.findall(r"^\$ (curl .*?)(?=^\$|^```)", DOCUMENT, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def url(llama_directory: Path) -> Iterator[str]:
    model = deterministic_model(read_tokenizer(llama_directory), DeterministicEngine())
    with served(Serving(model, Settings())) as url:
        yield url


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(url: str, program: str) -> None:
    script = program.replace(DOCUMENTED_URL, url)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20


@pytest.mark.parametrize("command", CURLS)
def test_the_curl_commands_are_answered(url: str, command: str) -> None:
    """What curl would send, sent without it: not every machine has it."""
    words = [word for word in shlex.split(command)[1:] if word != "-N"]
    address, option, body = words
    assert option == "-d"
    headers = {"content-type": "application/x-www-form-urlencoded"}  # curl's own for -d
    answer = httpx2.post(address.replace(DOCUMENTED_URL, url), content=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n") == json.loads(body).get("stream", False)


def test_nothing_in_the_document_is_left_out() -> None:
    assert len(PROGRAMS) == 4
    assert len(CURLS) == 6
    for name in re.findall(r"`([A-Z]{4}[A-Z_]*)`", DOCUMENT):
        documented_elsewhere = {"POST", "SIGTERM", "PROMETHEUS_MULTIPROC_DIR"}
        assert name in documented_elsewhere or hasattr(Settings(), name.lower()), name
