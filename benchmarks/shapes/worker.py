"""One fresh process: the first request for a shape, then in turns free text, JSON, and text that may call a tool.

Reads the handler's settings from the environment; prints one JSON object.
"""

import argparse
import json
import random
import time
from typing import Any

from msgspec.structs import replace

from api.chat import ChatTemplate
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from benchmarks.shapes.texts import SCHEMA, TEMPLATE, TOOL
from benchmarks.warm.command import PLAIN_IDS
from model_loader import load_model
from settings import Settings


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("calls", "tokens", "prompt", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    model = replace(load_model(Settings.from_env()), chat_template=ChatTemplate(TEMPLATE, {}))
    service = Service(model, draft_tokens=0)
    draw = random.Random(options.seed)
    prompt = [draw.choice(PLAIN_IDS) for _ in range(options.prompt)]
    free = {"prompt": prompt, "max_tokens": options.tokens, "ignore_eos": True, "temperature": 0}
    shaped = {"prompt": prompt, "max_tokens": 10 * options.tokens, "response_format": _format(SCHEMA), "temperature": 0}
    messages = [{"role": "user", "content": model.tokenizer.decode(prompt)}]
    chat = {"messages": messages, "max_tokens": options.tokens, "ignore_eos": True, "temperature": 0}
    for _ in range(2):
        _answer(service, free)
    first_s = _prepared(service, shaped)
    another_s = _prepared(service, {**shaped, "response_format": _format({**SCHEMA, "title": "Another"})})
    again_s = _prepared(service, shaped)
    kinds = {"free": free, "shaped": shaped, "chat": chat, "tools": {**chat, "tools": [TOOL]}}
    result = {
        "vocabulary": model.engine.vocab_size,
        "free_first_s": _prepared(service, free),
        "first_s": first_s,
        "another_s": another_s,
        "again_s": again_s,
        "answers": [
            {"kind": kind, **_answer(service, body)} for _ in range(options.calls) for kind, body in kinds.items()
        ],
    }
    print(json.dumps(result))


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "review", "schema": schema}}


def _request(body: dict[str, Any]) -> CompletionRequest | ChatRequest:
    return validate(ChatRequest, body) if "messages" in body else validate(CompletionRequest, body)


def _prepared(service: Service, body: dict[str, Any]) -> float:
    """Seconds from a request to where its text can begin."""
    started = time.perf_counter()
    service.prepare(_request(body))
    return time.perf_counter() - started


def _answer(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """Tokens of one answer, and the seconds after its first one."""
    answer: Any = service.respond(service.prepare(_request(body)))
    return {"tokens": answer["usage"]["completion_tokens"], "decode_s": answer["timings"]["decode_ms"] / 1000}


if __name__ == "__main__":
    main()
