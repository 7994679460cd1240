"""The image with several requests at once, as on Lambda Managed Instances: AWS's emulator in its mode for them.

`AWS_LAMBDA_MAX_CONCURRENCY` switches the emulator to that mode. There it starts no command but a file named
`bootstrap`, which the image has.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import EMULATOR, IMAGE, LIKE_LAMBDA, Container, started
from tests.running_server import wait_until

pytestmark = pytest.mark.container
WORKERS = 4
TIMEOUT_S = 15
PROMPTS = ("Once upon a time", "The fox", "A bear", "One day a queen")
POST_ALL = """
import json, sys, threading, urllib.request
events = json.load(sys.stdin)
answers = [None] * len(events)
url = "http://127.0.0.1:8080/2015-03-31/functions/function/invocations"

def post(number):
    with urllib.request.urlopen(url, json.dumps(events[number]).encode(), timeout=120) as response:
        answers[number] = response.read().decode()

threads = [threading.Thread(target=post, args=(number,)) for number in range(len(events))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(answers))
"""
MAPPED = """
import json, sys
found = {}
for line in open(f"/proc/{sys.argv[1]}/smaps"):
    words = line.split()
    if words[0] in ("Rss:", "Pss:"):
        sizes = found.setdefault(name, {"Rss:": 0, "Pss:": 0})
        sizes[words[0]] += int(words[1])
    elif not words[0].endswith(":"):
        name = words[5] if len(words) > 5 else ""
print(json.dumps(found))
"""
"""KB of a process's mappings by file: Rss is what it sees in memory, Pss its part of it where others see it too."""


@contextlib.contextmanager
def environment() -> Iterator[Container]:
    """An environment with four processes, all of them loaded."""
    options = [
        *LIKE_LAMBDA,
        *("--network", "none", "--cpus", "2", "--cap-add", "SYS_PTRACE"),  # the last to read a process's mappings
        *("--env", f"AWS_LAMBDA_MAX_CONCURRENCY={WORKERS}", "--env", f"AWS_LAMBDA_FUNCTION_TIMEOUT={TIMEOUT_S}"),
        *("--volume", f"{EMULATOR}:/emulator:ro", "--entrypoint", "/emulator"),
    ]
    with started(options, [], IMAGE) as container:
        container.wait_for('"model loaded"', times=WORKERS)
        yield container


@pytest.fixture(scope="module")
def managed() -> Iterator[Container]:
    with environment() as container:
        yield container


def lines(container: Container, message: str) -> list[dict[str, Any]]:
    """The records of the log with this message. Workers share a pipe: two of their records can stand in one line."""
    found, decoder = [], json.JSONDecoder()
    for line in container.log().splitlines():
        rest = line
        while rest.startswith("{"):
            record, end = decoder.raw_decode(rest)
            found += [record] if record.get("message") == message else []
            rest = rest[end:]
    return found


def bodies_of_all(container: Container, events: list[dict[str, Any]]) -> list[str]:
    """What comes back for events that are sent at once."""
    bodies: list[str] = json.loads(container.run("python3", "-c", POST_ALL, stdin=json.dumps(events)))
    return bodies


def invoke_all(container: Container, events: list[dict[str, Any]]) -> list[Any]:
    """The answers to events that are sent at once."""
    return [json.loads(body) for body in bodies_of_all(container, events)]


def workers(container: Container) -> list[int]:
    """The process ids of the workers: the children of the process that the emulator started."""
    code = """
import json, pathlib
parents = {}
for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
    text = status.read_text()
    if text.split()[1] == "(python3)":
        parents[int(text.split()[0])] = int(text.split()[3])
print(json.dumps([child for child, parent in parents.items() if parent in parents]))
"""
    found: list[int] = json.loads(container.run("python3", "-c", code))
    return found


def ticks(container: Container, worker: int) -> int:
    """Hundredths of a second that a worker has computed."""
    return int(container.run("cat", f"/proc/{worker}/stat").split()[13])


def texts(answers: list[Any]) -> list[str]:
    return [answer["choices"][0]["text"] for answer in answers]


def test_requests_at_once_are_each_answered_as_they_are_alone_each_by_another_worker(managed: Container) -> None:
    events = [{"prompt": prompt, "max_tokens": 400, "ignore_eos": True, "temperature": 0} for prompt in PROMPTS]
    alone = texts([answer for event in events for answer in invoke_all(managed, [event])])

    def all_compute() -> bool:
        """Whether each worker took one: a machine that is busy can let one answer before another has begun."""
        before = {worker: ticks(managed, worker) for worker in workers(managed)}
        assert texts(invoke_all(managed, events)) == alone
        return all(ticks(managed, worker) > computed for worker, computed in before.items())

    wait_until(all_compute, "each worker computes")
    generated = lines(managed, "tokens generated")
    assert len({line["function_request_id"] for line in generated}) == len(generated)


def test_streams_at_once_are_each_the_events_of_the_answer(managed: Container) -> None:
    events = [{"prompt": prompt, "max_tokens": 50, "temperature": 0} for prompt in PROMPTS]
    streams = bodies_of_all(managed, [event | {"stream": True} for event in events])
    said = []
    for stream in streams:
        *parts, end, rest = stream.split("\n\n")
        assert (end, rest) == ("data: [DONE]", "")
        chunks = [json.loads(part.removeprefix("data: ")) for part in parts]
        said.append("".join(choice["text"] for chunk in chunks for choice in chunk["choices"]))
    assert said == texts(invoke_all(managed, events))


def test_the_weights_of_all_workers_are_in_memory_once(managed: Container, capsys: pytest.CaptureFixture[str]) -> None:
    invoke_all(managed, [{"prompt": prompt, "max_tokens": 100} for prompt in PROMPTS])
    mapped = [json.loads(managed.run("python3", "-c", MAPPED, str(worker))) for worker in workers(managed)]
    weights = [files["/opt/model/weights.bin"] for files in mapped]
    assert len(weights) == WORKERS
    size = int(managed.run("stat", "--format", "%s", "/opt/model/weights.bin")) / 1024
    assert sum(each["Rss:"] for each in weights) > 0.9 * WORKERS * size
    assert sum(each["Pss:"] for each in weights) < 1.1 * size
    seen, kept = (sum(each[kind] for files in mapped for each in files.values()) for kind in ("Rss:", "Pss:"))
    with capsys.disabled():
        print(f"\n{WORKERS} workers see {seen / 1024:,.0f} MB and keep {kept / 1024:,.0f} MB of memory")


def test_a_worker_that_is_killed_is_said_and_the_others_answer() -> None:
    with environment() as container:
        victim = workers(container)[0]
        before = ticks(container, victim)
        busy = [{"prompt": prompt, "max_tokens": 400, "n": 16, "ignore_eos": True} for prompt in PROMPTS]
        answers: list[Any] = []
        client = threading.Thread(target=lambda: answers.extend(invoke_all(container, busy)))
        client.start()
        wait_until(lambda: ticks(container, victim) > before + 5, "the worker generates")
        container.run("python3", "-c", f"import os; os.kill({victim}, 9)")
        container.wait_for('"worker ended"')
        (said,) = lines(container, "worker ended")
        assert (said["pid"], said["exit_status"], said["left"], said["of"]) == (victim, -9, WORKERS - 1, WORKERS)
        client.join()
        failed = [answer for answer in answers if "choices" not in answer]
        assert [answer["errorType"] for answer in failed] == ["Sandbox.Timedout"]
        assert len(answers) == WORKERS
        after = invoke_all(container, [{"prompt": prompt, "max_tokens": 20} for prompt in PROMPTS[1:]])
        assert all(texts(after))
