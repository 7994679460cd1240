"""The results of one batch of a Step Functions Distributed Map, within what a state may pass on.

Imported only when such an event comes.
"""

import json
from collections.abc import Sequence
from typing import Any

from api.answers import Answer
from api.batch_lines import BatchLineError, custom_id_of, result_line

MAX_RESULTS_BYTES = 256_000
"""A little under the 262,144 bytes of a state's output. A task whose output is larger fails with all its items."""


def results(items: Sequence[Any], outcomes: Sequence[Answer | Exception], request_id: str) -> list[dict[str, Any]]:
    """A result for each of `items`, in their order. Where they are too long together, the longest answers are left out.

    `outcomes` holds each item's answer, or the error it met.
    """
    made = [
        result_line(f"{request_id}_{place}", custom_id_of(item), outcome, request_id)
        for place, (item, outcome) in enumerate(zip(items, outcomes, strict=True))
    ]
    sizes = [_size(result) for result in made]
    longest_first = sorted(range(len(made)), key=lambda place: sizes[place], reverse=True)
    too_large = BatchLineError(
        "answer_too_large",
        f"The answers of an invocation are over the {MAX_RESULTS_BYTES} bytes that Step Functions passes on; send it "
        "fewer lines, or ask for fewer tokens, choices or logprobs.",
    )
    for place in longest_first:
        if sum(sizes) <= MAX_RESULTS_BYTES:
            break
        made[place] = result_line(f"{request_id}_{place}", custom_id_of(items[place]), too_large, request_id)
        sizes[place] = _size(made[place])
    return made


def _size(result: dict[str, Any]) -> int:
    """Bytes of a result in the array that goes out, its comma included."""
    return len(json.dumps(result, ensure_ascii=False).encode(errors="replace")) + 2
