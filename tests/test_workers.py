"""aws/workers.py: several processes in one environment, as on Lambda Managed Instances."""

import json
import socket
import sys
import threading
from typing import Any

import pytest

from tests.running_server import wait_until
from tools.local_function import LocalFunction
from tools.runtime_api import Answer, RuntimeApi

TOY = (sys.executable, "-m", "aws.runtime", "tests.toy_handler.handler")


def ended(function: LocalFunction, count: int) -> list[dict[str, Any]]:
    """The first `count` lines that say that a worker ended, once they are there."""

    def said() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in function.output if line.startswith("{")]
        return [line for line in lines if line.get("message") == "worker ended"]

    wait_until(lambda: len(said()) >= count, f"{count} workers ended")
    return said()[:count]


def test_hanging_up_on_a_worker_that_ended_leaves_one_that_comes_late_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second worker's question for its first event is under way when the first worker's answer is given up."""
    asked, given_up = threading.Semaphore(0), threading.Event()

    class Slow(RuntimeApi):
        def receive(self, connection: socket.socket, answer: Answer | None) -> bytes:
            asked.release()
            if answer is not None:
                given_up.wait(60)
            return super().receive(connection, answer)

    with LocalFunction({"AWS_LAMBDA_MAX_CONCURRENCY": "2"}, TOY, Slow()) as function:
        first = function.start({"exit": 7})
        for _ in range(2):
            assert asked.acquire(timeout=60)
        ended(function, 1)
        first.abandon()
        given_up.set()
        assert json.loads(function.invoke({"echo": 0}).body) == 0


def test_a_worker_that_ends_is_said_and_the_others_go_on() -> None:
    with LocalFunction({"AWS_LAMBDA_MAX_CONCURRENCY": "2"}, TOY) as function:
        first = function.start({"exit": 7})
        (said,) = ended(function, 1)
        assert (said["exit_status"], said["left"], said["of"]) == (7, 1, 2)
        first.abandon()
        for number in range(3):
            assert json.loads(function.invoke({"echo": number}).body) == number
        function.start({"exit": 8}).abandon()
        assert ended(function, 2)[1]["left"] == 0
