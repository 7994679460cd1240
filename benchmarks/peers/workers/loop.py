"""What every worker speaks: one JSON object a line. In: {"ids": [...], "tokens": n}. Out: tokens and times in seconds.

A worker started with the word `together` takes {"prompts": [[...], ...], "tokens": n} instead; one started with
`shaped` takes a JSON schema beside ids and tokens, or null, as "schema".
The first line out says how long loading took; an error is a line {"error": "..."} and the end.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator


def serve(load: Callable[[], Callable[..., Iterator[int]]], *, reload: bool = False) -> None:
    """Load, then answer requests until the input ends. `load` returns a function that yields greedy tokens.

    It is given a request's ids and how many tokens are wanted, and its schema where it has one.

    With `reload` every request loads again first, as a handler does that builds its model each time.
    """
    begun = time.perf_counter()
    try:
        generate = load()
        _say({"load_s": time.perf_counter() - begun})
        for line in sys.stdin:
            request = json.loads(line)
            schema = [request["schema"]] if "schema" in request else []
            started = time.perf_counter()
            if reload:
                generate = load()
            loaded = time.perf_counter()
            ids, first = [], 0.0
            for token in generate(request["ids"], request["tokens"], *schema):
                first = first or time.perf_counter()
                ids.append(token)
                if len(ids) == request["tokens"]:
                    break
            ended = time.perf_counter()
            _say({"ids": ids, "load_s": loaded - started, "first_s": first - loaded, "decode_s": ended - first})
    except Exception as error:
        _say({"error": f"{type(error).__name__}: {error}"})


def serve_together(load: Callable[[], Callable[[list[list[int]], int, Callable[[int], None]], None]]) -> None:
    """The same for many prompts at once. `load` returns a function that calls its last argument for every token made,
    with the number of the prompt that the token continues.
    """
    begun = time.perf_counter()
    try:
        generate = load()
        _say({"load_s": time.perf_counter() - begun})
        for line in sys.stdin:
            request = json.loads(line)
            arrivals: list[list[float]] = [[] for _ in request["prompts"]]
            started = time.perf_counter()
            generate(request["prompts"], request["tokens"], lambda i: arrivals[i].append(time.perf_counter()))  # noqa: B023
            _say({
                "first_s": [times[0] - started for times in arrivals],
                "total_s": max(times[-1] for times in arrivals) - started,
                "made": sum(map(len, arrivals)),
            })  # fmt: skip
    except Exception as error:
        _say({"error": f"{type(error).__name__}: {error}"})


def _say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)
