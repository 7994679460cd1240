"""A handler for tests of the runtime client: streams what the event says, and remembers how far it came."""

import itertools
import os
from collections.abc import Generator
from typing import Any

from aws.streaming import StreamedAnswer

state = {"made": 0, "running": False}


class ToyError(Exception):
    """What a stream fails with."""


def handler(event: dict[str, Any], context: Any) -> Any:
    """`{"parts": [...]}` streams them; `gate` is a pipe of which each part first takes a byte; `error` comes last.

    `{"endless": SIZE}` streams parts of that size for ever; `{"echo": VALUE}` is answered with the value,
    `{"exit": STATUS}` ends the process. Anything else is answered with what became of the last stream.
    """
    if "exit" in event:
        os._exit(event["exit"])
    if "parts" not in event and "endless" not in event:
        return event.get("echo", dict(state))
    state.update(made=0, running=False)
    return StreamedAnswer(event.get("content_type", "text/plain"), _parts(event))


def _parts(event: dict[str, Any]) -> Generator[bytes]:
    gate = os.open(event["gate"], os.O_RDONLY) if "gate" in event else None
    endless = itertools.repeat("x" * event.get("endless", 0))
    state["running"] = True
    try:
        for part in event.get("parts", endless):
            if gate is not None:
                os.read(gate, 1)
            state["made"] += 1
            yield part.encode()
        if "error" in event:
            raise ToyError(event["error"])
    finally:
        state["running"] = False
        if gate is not None:
            os.close(gate)
