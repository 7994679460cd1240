"""What load-once saves: the same request answered by a model in memory, and by one loaded for it.

Both run in one process in which every library is imported and has done its first work, so that the difference is the
load alone: reading the tokenizer and the weights, building the network, warming it up. Run as a program, it prints the
comparison for `events/direct.json` and the model of the environment as JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.base import LoadError
from inference.schema import CompletionRequest, validate
from inference.service import Service
from model_loader import get_model, load_model
from settings import ROOT, Settings

REQUEST = ROOT / "events" / "direct.json"
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the rounds, milliseconds per request."""

    rounds: int
    loaded_once_ms: float
    """Answering with the model that is in memory."""
    loaded_per_request_ms: float
    """Loading the model, then answering."""
    load_ms: float
    """The loading in it."""

    @property
    def factor(self) -> float:
        return self.loaded_per_request_ms / self.loaded_once_ms


def compare(settings: Settings, body: Mapping[str, Any], rounds: int = ROUNDS) -> Comparison:
    """Answer the completion `body` both ways, in turns, `rounds` times each after one that is not counted."""
    service = Service(get_model(settings))
    once, per_request, loads = [], [], []
    for _ in range(rounds + 1):
        once.append(_milliseconds(lambda: _answer(service, body)))
        started = time.monotonic()
        loaded = Service(load_model(settings))
        loads.append(1000 * (time.monotonic() - started))
        _answer(loaded, body)
        per_request.append(1000 * (time.monotonic() - started))
    medians = [statistics.median(samples[1:]) for samples in (once, per_request, loads)]
    return Comparison(rounds, *medians)


def _answer(service: Service, body: Mapping[str, Any]) -> None:
    service.respond(service.prepare(validate(CompletionRequest, dict(body))))


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.monotonic()
    run()
    return 1000 * (time.monotonic() - started)


def main() -> int:
    """Print the comparison, or say on standard error why there is none."""
    try:
        comparison = compare(Settings.from_env(), json.loads(Path(REQUEST).read_bytes()))
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(comparison)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
