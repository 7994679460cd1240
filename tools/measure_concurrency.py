"""How many generations should run at once: throughput and latency of the loaded model at several numbers of slots.

`python -m tools.measure_concurrency` on the model and settings of the environment. Each number of slots serves the same
requests from as many clients, all of which wait for an answer before they ask again; the numbers take turns, so that a
noisy machine is noisy for all of them. The default of CONCURRENCY is what this showed; docs/server.md quotes it.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from api.schema import CompletionRequest, validate
from api.service import Service
from model_loader import get_model
from settings import Settings

SLOTS = (1, 2, 4)
CLIENTS = 4


def serve(service: Service, slots: int, prompt: Sequence[int], tokens: int) -> tuple[float, list[float], list[float]]:
    """Seconds for CLIENTS requests at once in `slots` slots; each one's seconds to the first token and to the last."""
    body = {"prompt": list(prompt), "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    request = validate(CompletionRequest, body)
    started = time.monotonic()
    jobs = [service.prepare(request) for _ in range(CLIENTS)]
    with ThreadPoolExecutor(slots) as pool:
        timings = [answer["timings"] for answer in pool.map(service.respond, jobs)]
    seconds = time.monotonic() - started
    return seconds, [t["time_to_first_token_ms"] / 1000 for t in timings], [t["total_ms"] / 1000 for t in timings]


def main() -> None:
    """Measure and print one line for each number of slots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = get_model(Settings.from_env())
    service = Service(model)
    prompt = [(7 * position) % model.engine.vocab_size for position in range(arguments.prompt_tokens)]
    seen: dict[int, list[tuple[float, list[float], list[float]]]] = {slots: [] for slots in SLOTS}
    for _ in range(arguments.rounds):
        for slots in SLOTS:
            seen[slots].append(serve(service, slots, prompt, arguments.tokens))
    engine = model.engine
    print(f"{model.name}, {engine.name} engine, {engine.dtype}, {engine.device}; {CLIENTS} clients at once, each")
    print(f"{arguments.prompt_tokens} prompt and {arguments.tokens} completion tokens; medians of {arguments.rounds}")
    print("slots   tokens/s   first token, s   whole answer, s")
    for slots, rounds in seen.items():
        rate = CLIENTS * arguments.tokens / statistics.median(seconds for seconds, _, _ in rounds)
        first = statistics.median(second for _, firsts, _ in rounds for second in firsts)
        whole = statistics.median(second for _, _, wholes in rounds for second in wholes)
        print(f"{slots:5}   {rate:8.1f}   {first:14.2f}   {whole:15.2f}")


if __name__ == "__main__":
    main()
