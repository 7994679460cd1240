"""The processes of an environment with several invocations at a time (Lambda Managed Instances), watched.

awslambdaric forks one for each invocation at a time, before the handler is imported, and waits for them in their order:
one that dies is neither noticed nor started again. Here its end is a line in the log.
"""

import json
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any

from awslambdaric import bootstrap  # type: ignore[import-untyped]
from awslambdaric.lambda_multi_concurrent_utils import MultiConcurrentRunner  # type: ignore[import-untyped]


def run_workers(config: Any, client: Callable[[str, bool], Any]) -> None:
    """Run as many workers as `config` says, each with a `client` of its own. SystemExit when none is left."""
    context = ForkContext()
    count = int(config.max_concurrency)
    signal.signal(signal.SIGTERM, _leave)  # daemons end with this process, unless a signal ends it
    workers = [context.Process(target=_work, args=(config, client), daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    left: dict[Any, ForkProcess] = {worker.sentinel: worker for worker in workers}
    while left:
        for sentinel in wait(list(left)):
            worker = left.pop(sentinel)
            worker.join()
            _say(worker.pid, worker.exitcode, len(left), count)
    sys.exit("No worker of this environment is left.")


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _work(config: Any, client: Callable[[str, bool], Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if config.lmi_socket_path:
        MultiConcurrentRunner._redirect_output(config.lmi_socket_path)
    bootstrap.run(config.handler, client(config.api_address, config.use_thread_polling))


def _say(pid: int | None, status: int | None, left: int, count: int) -> None:
    """One line of JSON, as all of an environment's lines are there."""
    line = {"level": "ERROR", "message": "worker ended", "pid": pid, "exit_status": status, "left": left, "of": count}
    print(json.dumps(line), flush=True)
