"""One fresh process: what masks cost along texts, with a real vocabulary of a size. Prints one JSON object."""

import json
import sys
import time
from itertools import chain
from typing import Any, cast

from msgspec import convert

from api.call_styles import HERMES
from api.schema import Tool
from api.tools import Offer, call_grammar
from benchmarks.shapes.texts import DOCUMENT, LETTER, PROSE, SCHEMA, TOOL, WRITTEN_LETTER
from benchmarks.shapes.vocabularies import GreedyTokenizer
from generation.constraint import MOST_FORCED, CompiledGrammar, Grammar, Grammars
from generation.tokenizer import Tokenizer

TIMES = 10


def main() -> None:
    """Measure. The argument is the vocabulary's size."""
    size = int(sys.argv[1])
    tokenizer = GreedyTokenizer(size)
    grammars = Grammars(cast(Tokenizer, tokenizer), size, [tokenizer.end])
    started = time.perf_counter()
    grammars.compiled(Grammar("regex", "a"))
    ready = time.perf_counter() - started
    function = convert(TOOL, Tool).function
    offer = Offer((function,), (function,), required=False, parallel=True, param="tools")
    texts: dict[str, tuple[Grammar, str]] = {
        "JSON of a review": (Grammar("json_schema", json.dumps(SCHEMA)), DOCUMENT),
        "JSON of a letter": (Grammar("json_schema", json.dumps(LETTER)), WRITTEN_LETTER),
        "text that may call": (call_grammar(offer, HERMES, None, thinking=False, schema=None, marks={}), PROSE),
    }
    measured: list[dict[str, Any]] = []
    for name, (grammar, text) in texts.items():
        compiled = grammars.compiled(grammar)
        steps = [_along(compiled, text, tokenizer) for _ in range(TIMES)]
        measured.append({"text": name, "first_s": steps[0], "later_s": list(chain(*steps[1:]))})
    print(json.dumps({"vocabulary": size, "ready_s": ready, "texts": measured}))


def _along(grammar: CompiledGrammar, text: str, tokenizer: GreedyTokenizer) -> list[float]:
    """Seconds of every mask on the way through `text`, taking the token and what it forces included."""
    constraint = grammar.begin()
    seconds = []
    rest = text.encode()
    while rest:
        token = int(tokenizer.encode(rest.decode(), add_special_tokens=False)[0])
        started = time.perf_counter()
        constraint.allowed(may_end=True)
        constraint.take(token)
        forced = constraint.take_forced(MOST_FORCED)
        seconds.append(time.perf_counter() - started)
        spelled = tokenizer.text([token, *forced])
        assert rest.startswith(spelled), (rest, spelled)
        rest = rest[len(spelled) :]
    return seconds


if __name__ == "__main__":
    main()
