"""`python -m server`: uvicorn with this project's settings. `uvicorn app:app` serves as well.

What it adds: bounds on connections, an exit status that tells of a failed load also with several workers, and /metrics
that speak for all of them.
"""

import os
import sys
import tempfile

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from engines.errors import LoadError
from server.connections import BOUNDS
from settings import Settings

WORKER_PATIENCE = 60
"""Seconds a worker may not answer its supervisor before it is replaced: a load may hold the interpreter that long."""


class Workers(Multiprocess):
    """uvicorn's supervisor, which sees at once that a worker ended while it was being asked whether it is well."""

    def keep_subprocess_alive(self) -> None:
        # This process's own copy of a worker's end keeps the pipe open, so the question waits for WORKER_PATIENCE.
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


def main() -> None:
    """Serve until a signal ends it."""
    try:
        settings = Settings.from_env()
    except LoadError as error:
        sys.exit(str(error))
    config = uvicorn.Config(
        "app:app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        timeout_worker_healthcheck=WORKER_PATIENCE,
        **BOUNDS,
    )
    if settings.workers == 1:
        uvicorn.Server(config).run()
        return
    with tempfile.TemporaryDirectory(prefix="metrics-") as shared:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", shared)
        workers = Workers(config, [config.bind_socket()])
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    main()
