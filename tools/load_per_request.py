"""What load-once saves: the same request answered by a model in memory, and by one loaded for it.

Both run in one process in which every library is imported and has done its first work, so that the difference is the
load alone: reading the tokenizer and the weights, building the network, warming it up. Run as a program, it prints the
comparison for `events/direct.json` and the model of the environment as JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from api.schema import CompletionRequest
from api.service import Service
from api.validation import validate
from engines.errors import LoadError
from model_loader import get_model, load_model
from settings import ROOT, Settings

REQUEST = ROOT / "events" / "direct.json"
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the rounds, milliseconds per request."""

    rounds: int
    load_ms: float
    """Loading the model, which the second way of answering begins with."""
    loaded_once_first_token_ms: float
    loaded_once_ms: float
    """Answering with the model that is in memory, to the last token."""
    loaded_per_request_first_token_ms: float
    loaded_per_request_ms: float
    """Loading the model, then answering."""


def compare(settings: Settings, body: Mapping[str, Any], rounds: int = ROUNDS) -> Comparison:
    """Answer the completion `body` both ways, in turns, `rounds` times each after one that is not counted."""
    service = Service(get_model(settings))
    samples = []
    for _ in range(rounds + 1):
        first_token, whole = _answer(service, body)
        started = time.monotonic()
        loaded = Service(load_model(settings))
        load = 1000 * (time.monotonic() - started)
        loaded_first_token, loaded_whole = _answer(loaded, body)
        samples.append((load, first_token, whole, load + loaded_first_token, load + loaded_whole))
    return Comparison(rounds, *(statistics.median(values) for values in zip(*samples[1:], strict=True)))


def _answer(service: Service, body: Mapping[str, Any]) -> tuple[float, float]:
    """Milliseconds to the first token and to the whole answer."""
    started = time.monotonic()
    timings = service.respond(service.prepare(validate(CompletionRequest, dict(body))))["timings"]
    return float(timings["time_to_first_token_ms"]), 1000 * (time.monotonic() - started)


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
