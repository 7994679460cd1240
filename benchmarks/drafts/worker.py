"""One fresh process: answers with drafts and without, in turns. Reads the handler's settings from the environment.

The network computes every pass in full; then each row of logits is made to say what the task's answer has there. So a
token costs what it costs, and a draft is right where a good model's answer copies. Prints one JSON object.
"""

import argparse
import json
import random
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from msgspec.structs import replace

from api.preparation import PreparedRequest
from api.schema import CompletionRequest
from api.service import Service
from api.validation import validate
from benchmarks.drafts.texts import FREE, TASKS, Task, cut
from benchmarks.warm.command import PLAIN_IDS
from engines.base import Step, TokenIds
from engines.compiled_engine import CompiledEngine
from engines.native_rows import NativeRows
from generation.drafting import MOST_DRAFTED
from model_loader import load_model
from settings import Settings

FIRST_ID = 100
"""Of the pieces of a text."""
WARM_UP = 8
"""Tokens of an uncounted call before each kind: it finds caches cold."""
SAID = np.float32(1e4)
"""A logit beyond all others."""


class SayingEngine:
    """An engine whose network is made to continue each known text as that text goes on. Everything else is its own."""

    def __init__(self, engine: CompiledEngine) -> None:
        self._engine = engine
        self._texts: dict[int, TokenIds] = {}
        self._of: dict[int, TokenIds] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def say(self, text: TokenIds) -> None:
        """Continue sequences that begin with the first token of `text` as it goes on."""
        self._texts[int(text[0])] = text

    def forward_natively(self, steps: Sequence[Step]) -> list[NativeRows]:
        """See `CompiledEngine.forward_natively`."""
        begins = [step.cache.length for step in steps]
        results = self._engine.forward_natively(steps)
        for step, begin, rows in zip(steps, begins, results, strict=True):
            if begin == 0:
                self._of[id(step.cache)] = self._texts[int(step.ids[0])]
            text, after = self._of[id(step.cache)], step.cache.length - len(rows) + 1
            following = text[after : after + len(rows)]
            rows.array()[np.arange(len(following)), np.array(following)] = SAID
        return results


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("seed", "calls", "beside", "free"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    model = load_model(Settings.from_env())
    if not isinstance(model.engine, CompiledEngine):
        raise SystemExit("drafts are for the compiled engine")
    engine: Any = SayingEngine(model.engine)
    said = Service(replace(model, engine=engine), prefix_cache=0)
    free = Service(model, prefix_cache=0)
    draw = random.Random(options.seed)
    kinds = [(task, beside) for task in TASKS for beside in sorted({1, options.beside})]
    kinds += [(FREE, 1)]
    draw.shuffle(kinds)
    answers = []
    for task, beside in kinds:
        prompts: list[list[int]] = []
        prediction: TokenIds | None = None
        if task in TASKS:
            ids = {piece: FIRST_ID + number for number, piece in enumerate(pieces(TASKS[task]))}
            prompt, answer, guess = (
                array("q", [ids[piece] for piece in cut(text or "")])
                for text in (TASKS[task].prompt, TASKS[task].answer, TASKS[task].prediction)
            )
            for number in range(beside):
                prompt[0] = FIRST_ID - 1 - number  # tells the texts apart
                engine.say(prompt + answer)
                prompts.append(prompt.tolist())
            service, length, prediction = said, len(answer), guess if len(guess) else None
        else:
            service, length = free, options.free
            prompts.append([draw.choice(PLAIN_IDS) for _ in range(64)])
        body = {"max_tokens": length, "ignore_eos": True, "seed": options.seed}
        bodies = [body | {"prompt": prompt, "temperature": 0 if task in TASKS else 1} for prompt in prompts]
        _ask(service, [body | {"max_tokens": WARM_UP} for body in bodies], MOST_DRAFTED, prediction)
        order = [MOST_DRAFTED, 0]
        for call in range(options.calls):
            draw.shuffle(order)
            measured = {most: _ask(service, bodies, most, prediction) for most in order}
            if measured[0].pop("texts") != measured[MOST_DRAFTED].pop("texts"):
                raise SystemExit(f"drafts changed the text of {task}")
            common = {"task": task, "sequences": beside, "call": call}
            answers += [{**common, "drafts": most > 0, **measured[most]} for most in order]
    print(json.dumps({"answers": answers}))


def pieces(task: Task) -> list[str]:
    """All that the texts of a task are made of, each once."""
    return list(dict.fromkeys(cut(task.prompt) + cut(task.answer) + cut(task.prediction or "")))


def _ask(service: Service, bodies: list[dict[str, Any]], most: int, prediction: TokenIds | None) -> dict[str, Any]:
    """All `bodies` at once, with drafts of up to `most` tokens."""

    def prepared(body: dict[str, Any]) -> PreparedRequest:
        request = service.prepare(validate(CompletionRequest, body | {"prompt_lookup_num_tokens": most}))
        choices = [replace(each, params=replace(each.params, prediction=prediction)) for each in request.choices]
        return replace(request, choices=tuple(choices))

    given = []
    for answer in service.respond_all([partial(prepared, body) for body in bodies]):
        if isinstance(answer, Exception):
            raise answer
        given.append(answer)
    usages = [answer["usage"] for answer in given]
    details = [usage["completion_tokens_details"] for usage in usages]
    return {
        "tokens": sum(usage["completion_tokens"] for usage in usages),
        "accepted": sum(each["accepted_prediction_tokens"] for each in details),
        "rejected": sum(each["rejected_prediction_tokens"] for each in details),
        "decode_s": max(answer["timings"]["decode_ms"] for answer in given) / 1000,
        "texts": [answer["choices"][0]["text"] for answer in given],
    }


if __name__ == "__main__":
    main()
