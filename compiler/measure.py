"""One engine in a fresh process: `python -m compiler.measure KIND DIRECTORY THREADS < request > answer`.

The compiler runs it once per engine, so that start-up and memory are each engine's own. The request is an npz with
`started` (time.time() when the process was asked for), prompts `p0, p1, ...` and optionally `text`, token ids to
score in windows of `window`, with `logs`, the name of an .npy file that the reference writes and others are compared
with; the answer is an npz with the logits `l0, ...`, seconds and bytes, and what `Scores` says.
"""

import io
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import Engine, Step

REFERENCE = "float32"
"""The kind of engine that others are compared with."""
_ROWS = 64  # logits compared per prompt, from its end
_STEPS = 48
_ONE_AT_A_TIME = 4  # tokens of a prompt that are fed in passes of their own


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


def log_probabilities(engine: Engine, text: npt.NDArray[np.int64], window: int) -> Iterator[npt.NDArray[np.float32]]:
    """`[S, V]`, chunk after chunk: of what follows each token of `text` but the last, read in windows."""
    for begin in range(0, len(text) - 1, window):
        ids = text[begin : min(begin + window, len(text) - 1)]
        cache = engine.new_cache()
        for at in range(0, len(ids), engine.max_rows):
            chunk = ids[at : at + engine.max_rows]
            (logits,) = engine.forward([Step(chunk, cache, len(chunk))])
            yield normalised(logits)


def normalised(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits `[S, V]` as log-probabilities."""
    below: npt.NDArray[np.float32] = logits - logits.max(1, keepdims=True)
    below -= np.log(np.exp(below).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return below


class Scores:
    """What an engine makes of a text, taken chunk by chunk.

    `logs` `[T, V]` is the file of log-probabilities after the text's first T tokens: the reference fills it, others are
    compared with it.
    """

    def __init__(self, text: npt.NDArray[np.int64], logs: npt.NDArray[np.float32], *, reference: bool) -> None:
        self._targets, self._logs, self._reference = text[1:], logs, reference
        self._at = 0
        self._losses: list[npt.NDArray[np.float32]] = []
        self._choices: list[npt.NDArray[np.int64]] = []
        self._divergences: list[npt.NDArray[np.float32]] = []

    def add(self, found: npt.NDArray[np.float32]) -> None:
        """The next log-probabilities, `[S, V]`."""
        here = slice(self._at, self._at + len(found))
        self._at = here.stop
        self._losses.append(-found[np.arange(len(found)), self._targets[here]])
        self._choices.append(found.argmax(1))
        theirs = self._logs[here]
        if self._reference:
            theirs[:] = found[: len(theirs)]
        else:
            self._divergences.append((np.exp(theirs) * (theirs - found[: len(theirs)])).sum(1))

    def answer(self) -> dict[str, Any]:
        """Negative log-likelihood and first choice for each token but the first, and the mean Kullback-Leibler
        divergence from the reference in nats a token, 0 for the reference itself.
        """
        divergence = np.concatenate(self._divergences).astype(np.float64).mean() if self._divergences else 0.0
        losses = np.concatenate(self._losses).astype(np.float64)
        return {"nll": losses, "choices": np.concatenate(self._choices), "divergence": divergence}


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
        text, logs = request["text"], np.load(str(request["logs"]), mmap_mode="r+")
        scores = Scores(text, logs, reference=kind == REFERENCE)
        for found in log_probabilities(engine, text, min(int(request["window"]), engine.context_length)):
            scores.add(found)
        answer |= scores.answer()
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
