"""One engine in a fresh process: `python -m compiler.measure KIND DIRECTORY THREADS < request > answer`.

The compiler runs it once per engine, so that start-up and memory are each engine's own. The request is an npz with
`started` (time.time() when the process was asked for), prompts `p0, p1, ...` and optionally `text`, token ids to
score; the answer is an npz with the logits `l0, ...`, seconds and bytes, and `nll [len(text) - 1]`.
"""

import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import Engine, Step

_ROWS = 64  # logits compared per prompt, from its end
_STEPS = 48
_ONE_AT_A_TIME = 4  # tokens of a prompt that go through the graph for single tokens


def load(kind: str, directory: Path, threads: int) -> Engine:
    """`compiled`: that engine, on an artifact. Any other kind is a dtype: the transformers engine, on a checkpoint."""
    if kind == "compiled":
        from engines import compiled_engine

        return compiled_engine.load(directory, threads=threads)
    from engines import transformers_engine

    return transformers_engine.load(directory, dtype=kind, device="cpu", threads=threads)


def last_logits(engine: Engine, ids: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.float32]:
    """Logits after at most the last `rows` of `ids`, `[*, V]`; the very last ids one at a time, as when generating."""
    cache = engine.new_cache()
    prompt = max(1, len(ids) - _ONE_AT_A_TIME)
    for begin in range(0, prompt, engine.max_rows):
        chunk = ids[begin : min(begin + engine.max_rows, prompt)]
        logits = engine.forward([Step(chunk, cache, min(rows, len(chunk)))])
    for i in range(prompt, len(ids)):
        logits += engine.forward([Step(ids[i : i + 1], cache)])
    return np.concatenate(logits)[-rows:]


def score(
    engine: Engine, text: npt.NDArray[np.int64], window: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Negative log-likelihood of each token of `text` but those that open a window, and the engine's first choices."""
    losses, choices = [], []
    for begin in range(0, len(text) - 1, window):
        ids = text[begin : begin + window + 1]
        cache = engine.new_cache()
        for at in range(0, len(ids) - 1, engine.max_rows):
            chunk = ids[:-1][at : at + engine.max_rows]
            logits = engine.forward([Step(chunk, cache, len(chunk))])[0].astype(np.float64)
            logits -= logits.max(1, keepdims=True)
            logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            losses.append(-logs[np.arange(len(chunk)), ids[at + 1 : at + 1 + len(chunk)]])
            choices.append(logits.argmax(1))
    return np.concatenate(losses), np.concatenate(choices)


def _peak_bytes() -> int:
    """Most memory this process had at once. The kernel's per-process figure would include the parent's."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def measure(kind: str, directory: Path, threads: int, request: Any) -> dict[str, Any]:
    """Everything the compiler's table says of one engine."""
    engine = load(kind, directory, threads)
    first = request["p0"]
    cache = engine.new_cache()
    (logits,) = engine.forward([Step(first[: engine.max_rows], cache)])
    answer: dict[str, Any] = {"first_token_s": time.time() - float(request["started"])}
    steps = []
    for _ in range(min(_STEPS, engine.context_length - cache.length)):
        began = time.perf_counter()
        (logits,) = engine.forward([Step(logits.argmax(1), cache)])
        steps.append(time.perf_counter() - began)
    answer["token_ms"] = 1000 * float(np.median(steps)) if steps else float("nan")
    answer["peak_bytes"] = _peak_bytes()
    for name in request.files:
        if name.startswith("p"):
            answer["l" + name[1:]] = last_logits(engine, request[name], _ROWS)
    if "text" in request.files:
        answer["nll"], answer["choices"] = score(engine, request["text"], min(512, engine.context_length))
    return answer


def main() -> None:
    """Read the request from standard input, answer on standard output."""
    kind, directory, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    request = np.load(io.BytesIO(sys.stdin.buffer.read()))
    answer = io.BytesIO()
    np.savez(answer, **measure(kind, directory, threads, request))
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
