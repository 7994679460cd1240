"""Callers at once: the server over HTTP, and the handler's batches from a queue; before and now where both are named.

Scenarios: `lone` request; `together`, so many clients each waiting for its answer; `newcomer`, the wait for the first
token of a request that comes while others decode; `choices` of one prompt; `queue`, a batch of messages.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.batch.engines import PLAIN_IDS
from benchmarks.checkpoints import COMPILED
from benchmarks.errors import InputError
from benchmarks.load.server import Server
from benchmarks.results import Recorder
from benchmarks.variants import Variant, interleaved

CLIENTS = 8
CHOICES = 8
MESSAGES = 10
NOW = "now"
ROOT = Path(__file__).parents[2]


def measure(options: argparse.Namespace, source: Path, variants: Sequence[Variant], recorder: Recorder) -> None:
    """Fill `recorder.data["callers"]`: seconds per state of the project, scenario and round, of the first model."""
    states = {NOW: ROOT} if options.before is None else {"before": options.before.resolve(), NOW: ROOT}
    with contextlib.ExitStack() as stack, Progress() as progress:
        kinds = {}
        for variant in variants[:1]:
            for state, root in states.items():
                directory = variant.directory if state == NOW else _compiled(source, variant, root)
                own = Variant(variant.name, directory, {**variant.environment, "CONCURRENCY": "16", "MAX_CHOICES": "8"})
                server = stack.enter_context(Server(own, 1, root))
                queue = stack.enter_context(_Queue(own, root))
                for scenario in (_lone, _together, _newcomer, _choices, queue.one, queue.many):
                    kinds[state, variant.name, scenario.__name__.strip("_")] = (scenario, server.port)
                    scenario(server.port, options, -1)
        task = progress.add_task("callers", total=len(kinds) * options.calls)
        for i, kind in interleaved(list(kinds), options.calls):
            scenario, port = kinds[kind]
            state, model, name = kind
            sample = {
                "state": state,
                "variant": model,
                "scenario": name,
                "round": i,
                "seconds": scenario(port, options, i),
            }
            recorder.data["callers"].append(sample)
            recorder.save(complete=False)
            progress.advance(task)


def _compiled(source: Path, variant: Variant, root: Path) -> Path:
    """The same checkpoint at the same precision, compiled by the project as it was in `root`."""
    precision = str(json.loads((variant.directory / "manifest.json").read_text())["quantization"])
    directory = root / COMPILED / f"{source.name}-{precision}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "compiler", str(source), str(directory), "--quantize", precision]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"--before cannot compile {source.name}: {done.stderr.strip().splitlines()[-1][:300]}")
    return directory


def _body(options: argparse.Namespace, seed: int, **changes: Any) -> dict[str, Any]:
    draw = random.Random(seed)
    prompt = [draw.choice(PLAIN_IDS) for _ in range(options.prompt)]
    return {"prompt": prompt, "max_tokens": options.tokens, "temperature": 0, "ignore_eos": True, **changes}


def _post(port: int, body: dict[str, Any]) -> Iterator[bytes]:
    """Send a request; the lines of its answer as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise InputError(f"the server answers {answer.status}: {answer.read()[:300].decode(errors='replace')}")
        yield from answer


def _whole(port: int, body: dict[str, Any]) -> None:
    answer = json.loads(b"".join(_post(port, body)))
    if any(choice["finish_reason"] != "length" for choice in answer["choices"]):
        raise InputError("the server ended an answer early")


def _lone(port: int, options: argparse.Namespace, seed: int) -> float:
    started = time.perf_counter()
    _whole(port, _body(options, 100 * seed + 99))
    return time.perf_counter() - started


def _together(port: int, options: argparse.Namespace, seed: int) -> float:
    """Seconds until all clients have two answers each."""

    def client(number: int) -> None:
        for turn in range(2):
            _whole(port, _body(options, 100 * seed + 2 * number + turn))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _first(port: int, body: dict[str, Any]) -> float:
    started = time.perf_counter()
    stream = _post(port, {**body, "stream": True, "max_tokens": 2})
    next(line for line in stream if line.startswith(b"data:"))
    first = time.perf_counter() - started
    for _ in stream:
        pass
    return first


def _newcomer(port: int, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Seconds to a first token: `alone`, and `beside` all but one of the clients, which decode meanwhile."""
    alone = _first(port, _body(options, 100 * seed + 50))
    decoding = threading.Barrier(CLIENTS)
    leave = threading.Event()

    def other(number: int) -> None:
        stream = _post(port, _body(options, 100 * seed + 60 + number, stream=True, max_tokens=400))
        next(line for line in stream if line.startswith(b"data:"))
        decoding.wait(300)
        for _ in stream:
            if leave.is_set():
                return

    threads = [threading.Thread(target=other, args=(number,)) for number in range(CLIENTS - 1)]
    for thread in threads:
        thread.start()
    decoding.wait(300)
    beside = _first(port, _body(options, 100 * seed + 51))
    leave.set()
    for thread in threads:
        thread.join()
    return {"alone": alone, "beside": beside}


def _choices(port: int, options: argparse.Namespace, seed: int) -> float:
    started = time.perf_counter()
    _whole(port, _body(options, 100 * seed + 90, n=CHOICES))
    return time.perf_counter() - started


class _Queue:
    """The project's handler in a process of its own, given events of SQS messages; a queue of moto's takes answers."""

    def __init__(self, variant: Variant, root: Path) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("queue_worker.py"))]
        self._environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MODEL_DIR": str(variant.directory)}
        self._root = root
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Queue":
        self._process = subprocess.Popen(
            self._command,
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def one(self, _: int, options: argparse.Namespace, seed: int) -> float:
        """Seconds of an invocation with one message."""
        return self._ask([_body(options, 100 * seed + 30)])

    def many(self, _: int, options: argparse.Namespace, seed: int) -> float:
        """Seconds of an invocation with a batch of messages."""
        return self._ask([_body(options, 100 * seed + 31 + number) for number in range(MESSAGES)])

    def _ask(self, bodies: list[dict[str, Any]]) -> float:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(bodies) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):
                return float(json.loads(line)["seconds"])
        raise InputError("the handler does not answer a batch of messages")
