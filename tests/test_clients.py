"""Client libraries, driven as their own documentation says, against the server and the Lambda handler.

Each driver of `tests/clients/` runs once, in the environment of its client, against both doors. Answers are those of
the model in `tests/clients/checkpoint.py`, so that they can be compared word for word.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.checkpoint import make_checkpoint
from tests.clients.results import RESULTS, read_results
from tests.clients.subject import MODEL
from tests.running_server import ROOT, ServerProcess, free_port, wait_until

pytestmark = pytest.mark.clients

CLIENTS = ROOT / ".venv" / "clients"
OPENAI_2 = ROOT / ".venv" / "clients-openai-2"
PYTHON: Mapping[str, Path] = {
    "anthropic_package": CLIENTS,
    "openai_package": CLIENTS,
    "langchain": CLIENTS,
    "litellm": CLIENTS,
    "agents_sdk": CLIENTS,
    "pydantic_ai": CLIENTS,
    "instructor": OPENAI_2,
    "llama_index": OPENAI_2,
    "smolagents": CLIENTS,
    "dspy": CLIENTS,
    "llm_package": CLIENTS,
}
"""Drivers, each with the environment that has its client."""
NODE = ("openai_npm", "ai_sdk")
SETTINGS = {"MODEL_NAME": MODEL, "THREADS": "1"}
QUIET = {"OTEL_SDK_DISABLED": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "127.0.0.1"}
"""What keeps clients from asking anybody but the server."""


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The base URL of each door."""
    folder = tmp_path_factory.mktemp("clients")
    env = {**SETTINGS, "MODEL_DIR": str(make_checkpoint(folder / "checkpoint"))}
    server, gateway = free_port(), free_port()
    with ExitStack() as stack:
        processes = [
            ServerProcess(["-m", "server"], {**env, "PORT": str(server)}, server, folder / "server.log"),
            ServerProcess(["-m", "tools.gateway", "--port", str(gateway)], env, gateway, folder / "gateway.log"),
        ]
        for process in processes:
            stack.enter_context(process)
        for process in processes:
            wait_until(process.listens, "it listens")
        yield {"server": f"{processes[0].url}/v1", "lambda": f"{processes[1].url}/v1"}


@pytest.fixture(scope="module")
def found(doors: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each driver reports, two of them running at a time. CLIENTS_REPORT names a file for it."""
    missing = [environment.name for environment in {*PYTHON.values()} if not (environment / "ready").exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make test-clients does it")
    with ThreadPoolExecutor(2) as pool:
        running = {name: pool.submit(drive, name, doors, tmp_path_factory) for name in (*PYTHON, *node_drivers())}
        reports = {name: report.result() for name, report in running.items()}
    if path := os.environ.get("CLIENTS_REPORT"):
        Path(path).write_text(json.dumps(reports, indent=1) + "\n")
    return reports


def node_drivers() -> tuple[str, ...]:
    """None where there is no npm."""
    return NODE if (CLIENTS / "node_modules").exists() else ()


def drive(name: str, doors: Mapping[str, str], folders: pytest.TempPathFactory) -> dict[str, Any]:
    """What a driver prints last, or `{"failed": its errors}`."""
    places = [f"{door}={url}" for door, url in doors.items()]
    if name in PYTHON:
        command = [str(PYTHON[name] / "bin" / "python"), "-m", f"tests.clients.{name}", *places]
    else:
        for script in (ROOT / "tests" / "clients").glob("*.mjs"):  # packages are looked for beside the script
            shutil.copy(script, CLIENTS)
        command = ["node", str(CLIENTS / f"{name}.mjs"), *places]
    env = {**os.environ, **QUIET, "HOME": str(folders.mktemp(name))}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return {"failed": done.stderr[-2000:]}
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize("name", [*PYTHON, *NODE])
def test_a_client_gets_what_it_asks_for(name: str, found: dict[str, Any]) -> None:
    if name not in found:
        pytest.skip("no npm: the clients for JavaScript are not tested")
    assert "failed" not in found[name], found[name]["failed"]
    faults = {
        f"{api}, {check}, {door}": fault
        for api, checks in found[name]["apis"].items()
        for check, outcome in checks.items()
        for door, fault in outcome.items()
        if fault is not None
    }
    assert faults == {}


def test_the_committed_results_are_these(found: dict[str, Any]) -> None:
    """`make test-clients CLIENTS_REPORT=tests/clients/results.json` writes them again."""
    committed = read_results()
    assert committed.keys() == {*PYTHON, *NODE}, f"{RESULTS} misses clients"
    assert {name: committed[name] for name in found} == found
