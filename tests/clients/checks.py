"""Runs a client's checks against each door and prints what became of them, as one line of JSON.

A driver is started as `python -m tests.clients.NAME DOOR=BASE_URL ...` in the environment of its client.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

Check = Callable[[str], Any]
"""Takes the base URL. Raises where the client did not get what it should; may be a coroutine function."""
SHOWN = 600
"""Characters of an error that are reported."""


def run(package: str, apis: Mapping[str, Mapping[str, Check]]) -> None:
    """Run the checks of each API. Prints the version of `package`, and for every check what each door gave."""
    doors = dict(argument.split("=", 1) for argument in sys.argv[1:])
    with asyncio.Runner() as runner:  # one event loop: clients keep connections that belong to it
        found = {
            api: {
                name: {door: _fault(check, url, runner) for door, url in doors.items()}
                for name, check in checks.items()
            }
            for api, checks in apis.items()
        }
    print(json.dumps({"version": version(package), "apis": found}))


def _fault(check: Check, url: str, runner: asyncio.Runner) -> str | None:
    """What went wrong, None where nothing did."""
    try:
        result = check(url)
        if inspect.iscoroutine(result):
            runner.run(result)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:SHOWN]
    return None
