"""aws/workers.py: several processes in one environment, as on Lambda Managed Instances."""

import json
import sys
from typing import Any

from tests.running_server import wait_until
from tools.local_function import LocalFunction

TOY = (sys.executable, "-m", "aws.runtime", "tests.toy_handler.handler")


def ended(function: LocalFunction, count: int) -> list[dict[str, Any]]:
    """The first `count` lines that say that a worker ended, once they are there."""

    def said() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in function.output if line.startswith("{")]
        return [line for line in lines if line.get("message") == "worker ended"]

    wait_until(lambda: len(said()) >= count, f"{count} workers ended")
    return said()[:count]


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
