"""One fresh process: the first request for a shape, then answers in shape beside free text, then masks alone.

Reads the handler's settings from the environment; prints one JSON object.
"""

import argparse
import json
import random
import time
from typing import Any

import numpy as np

from api.schema import CompletionRequest, validate
from api.service import Service
from benchmarks.warm.command import PLAIN_IDS
from generation.constraint import MOST_FORCED, Grammar
from generation.sampling import allowed_only
from model_loader import load_model
from settings import Settings

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 12},
        "sentiment": {"enum": ["positive", "negative", "neutral"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "product_returned": {"type": "boolean"},
        "topics": {
            "type": "array",
            "items": {"enum": ["delivery", "price", "quality", "support"]},
            "minItems": 2,
            "maxItems": 2,
        },
        "reply_needed_by": {"type": "string", "format": "date"},
    },
    "required": ["customer", "sentiment", "stars", "product_returned", "topics", "reply_needed_by"],
    "additionalProperties": False,
}
"""A review's facts: the length of its answers is about the same whatever a network says."""
STEPS = 200
"""Masks that are timed alone."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("calls", "tokens", "prompt", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    service = Service(load_model(Settings.from_env()))
    draw = random.Random(options.seed)
    prompt = [draw.choice(PLAIN_IDS) for _ in range(options.prompt)]
    free = {"prompt": prompt, "max_tokens": options.tokens, "ignore_eos": True}
    shaped = {"prompt": prompt, "max_tokens": 10 * options.tokens, "response_format": _format(SCHEMA)}
    for _ in range(2):
        _answer(service, free, 0)
    first_s = _prepared(service, shaped)
    another_s = _prepared(service, {**shaped, "response_format": _format({**SCHEMA, "title": "Another"})})
    again_s = _prepared(service, shaped)
    kinds = {"free": free, "shaped": shaped}
    answers = [
        {"kind": kind, **_answer(service, kinds[kind], call)} for call in range(options.calls) for kind in sorted(kinds)
    ]
    result = {
        "vocabulary": service.model.engine.vocab_size,
        "free_prepare_s": _prepared(service, free),
        "first_prepare_s": first_s,
        "another_prepare_s": another_s,
        "again_prepare_s": again_s,
        "answers": answers,
        "mask_s": _masks(service, draw),
    }
    print(json.dumps(result))


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "review", "schema": schema}}


def _prepared(service: Service, body: dict[str, Any]) -> float:
    """Seconds from a request to where its text can begin."""
    started = time.perf_counter()
    service.prepare(validate(CompletionRequest, body))
    return time.perf_counter() - started


def _answer(service: Service, body: dict[str, Any], seed: int) -> dict[str, Any]:
    """Tokens of one answer, and the seconds after its first one."""
    answer = service.respond(service.prepare(validate(CompletionRequest, {**body, "seed": seed})))
    return {"tokens": answer["usage"]["completion_tokens"], "decode_s": answer["timings"]["decode_ms"] / 1000}


def _masks(service: Service, draw: random.Random) -> list[float]:
    """Seconds that each step's mask and bookkeeping take, for texts drawn among all that are possible."""
    grammar = service.model.grammars.compiled(Grammar("json_schema", json.dumps(SCHEMA)))
    scores = np.zeros(service.model.engine.vocab_size, np.float32)
    seconds: list[float] = []
    constraint = grammar.begin()
    while len(seconds) < STEPS:
        started = time.perf_counter()
        possible = allowed_only(scores, constraint.allowed(may_end=True), ())
        masked = time.perf_counter()
        token = draw.choice(np.flatnonzero(possible == 0).tolist())
        drawn = time.perf_counter()
        if token in constraint.ends:
            constraint = grammar.begin()
            continue
        constraint.take(token)
        constraint.take_forced(MOST_FORCED)
        seconds.append(time.perf_counter() - drawn + masked - started)
        if constraint.is_complete:
            constraint = grammar.begin()
    return seconds


if __name__ == "__main__":
    main()
