"""Artifact against checkpoint: both engines in fresh processes, their logits compared, one table printed.

The checkpoint can also be compared with itself in another dtype. Knows nothing of how the artifact was made.
"""

import io
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import CompileError, UnsupportedModelError
from compiler.measure import REFERENCE
from engines import artifact
from engines.machine import usable_vcpus

# Least mean correlation of a position's logits with transformers', below which something is broken rather than rounded,
# and the largest relative difference of float32 logits. What is broken has a correlation near 0. Random weights carry
# rounding far: 2 layers of a random SmolLM2-135M leave 0.995 in int8, ours or simulated in torch, and 30 layers 0.86.
_CORRELATION = {"none": 0.9999, "int8": 0.5, "int4": 0.1}
_TOLERANCE = 1e-4
_FAR = 0.9
"""Correlation below which a user is told: the demo, which is trained, keeps 0.996 in int4."""
_SHARED_OUT = 200
"""Tokens of a pass that every loop of the graph shares out between threads."""
_LOGS_BYTES = 500_000_000
"""Of the reference's log-probabilities, kept on disk meanwhile: more tokens of a text are not compared one by one."""


@dataclass(frozen=True)
class Comparison:
    """What the table shows. Relative differences are to the largest logit; times in seconds and milliseconds."""

    size_bytes: int
    positions: int
    """Positions whose most likely tokens were compared."""
    difference: float
    agreement: float
    correlation: float
    target: dict[str, float]
    reference: dict[str, float]
    perplexity: tuple[float, float] | None
    divergence: float | None
    """Mean Kullback-Leibler divergence from the reference, nats a token of the text."""


def _prompts(vocab_size: int, context: int, chunk: int) -> dict[str, npt.NDArray[np.int64]]:
    """Random ids: a short prompt, a single token, and one longer than a prefill chunk where the context allows."""
    random = np.random.default_rng(0)
    lengths = sorted({min(18, context), 1, min(chunk + 40, context)} - {0}, key=lambda n: n != min(18, context))
    return {f"p{i}": random.integers(0, vocab_size, n) for i, n in enumerate(lengths)}


def _sizes(kind: str, directory: Path) -> tuple[int, int, int]:
    """Vocabulary, longest context and prefill chunk, in tokens."""
    if kind == "compiled":
        compiled = artifact.read(directory)
        return compiled.vocab_size, compiled.context_length, compiled.max_rows
    from transformers import AutoConfig

    from engines.transformers_engine import MAX_ROWS

    text = AutoConfig.from_pretrained(directory, trust_remote_code=False).get_text_config()
    return text.vocab_size, getattr(text, "max_position_embeddings", None) or MAX_ROWS, MAX_ROWS


def size_on_disk(directory: Path) -> int:
    """Bytes of every file below it."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def read_text(file: Path) -> str:
    """The beginning of a text file. CompileError where it holds no text."""
    try:
        text = file.read_text("utf-8")[:400_000]
    except UnicodeDecodeError as error:
        raise CompileError(f"{file} is not UTF-8 (byte {error.start}).") from None
    if len(text.split()) < 2:
        raise CompileError(f"{file} holds no text to compare on.")
    return text


def held_out(checkpoint: Path, text: str) -> npt.NDArray[np.int64]:
    """The first ids of a text. CompileError without a tokenizer."""
    from tokenizers import Tokenizer

    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        raise CompileError(f"{file} is missing, and a text is compared by its tokens.")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.array(tokenizer.encode(text).ids[:16_384], np.int64)


def _measure(kind: str, directory: Path, threads: int, request: dict[str, Any]) -> dict[str, Any]:
    stream = io.BytesIO()
    np.savez(stream, started=time.time(), **request)
    done = subprocess.run(
        [sys.executable, "-m", "compiler.measure", kind, str(directory), str(threads)],
        input=stream.getvalue(), capture_output=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    what = "the compiled model" if kind == "compiled" else str(directory)  # one that is checked has no place yet
    if done.returncode < 0:
        raise CompileError(
            f"Signal {-done.returncode} ended the process that measures {what}, {kind}; the kernel sends 9 when memory "
            f"runs out."
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        error = UnsupportedModelError if kind == "compiled" else CompileError
        raise error(
            f"{what[:1].upper()}{what[1:]} does not run in a process of its own, {kind} ({said[-1].rstrip('.')})"
        )
    return dict(np.load(io.BytesIO(done.stdout)))


def _to_score(vocab_size: int, text: npt.NDArray[np.int64], window: int, scratch: Path) -> dict[str, Any]:
    """The part of a request that asks for what an engine makes of `text`, with a file for the reference's logits."""
    logs, rows = scratch / "logs.npy", min(len(text) - 1, _LOGS_BYTES // (4 * vocab_size))
    np.lib.format.open_memmap(logs, "w+", np.float32, (rows, vocab_size))
    return {"text": text, "window": window, "logs": str(logs)}


def reference(
    checkpoint: Path, text: npt.NDArray[np.int64], window: int, scratch: Path
) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """What `Scores` says of transformers in float32 on `text`, and its log-probabilities, a file in `scratch`."""
    vocab_size, context, chunk = _sizes(REFERENCE, checkpoint)
    request = {**_prompts(vocab_size, context, chunk), **_to_score(vocab_size, text, window, scratch)}
    answer = _measure(REFERENCE, checkpoint.resolve(), usable_vcpus(), request)
    return answer, np.load(request["logs"], mmap_mode="r")


def compare(
    checkpoint: Path,
    target: Path,
    text: npt.NDArray[np.int64] | None,
    kind: str = "compiled",
    window: int = 512,
) -> Comparison:
    """Run `target` and the checkpoint in float32 on the same prompts, and on windows of `text`, ids `[T]`, if given.

    `target` is an artifact, or with a dtype as `kind` a checkpoint, which transformers then runs in that dtype.
    """
    vocab_size, context, chunk = _sizes(kind, target)
    request: dict[str, Any] = dict(_prompts(vocab_size, context, chunk))
    threads = usable_vcpus()
    with tempfile.TemporaryDirectory() as scratch:
        if text is not None:
            request |= _to_score(vocab_size, text, window, Path(scratch))
        theirs = _measure(REFERENCE, checkpoint.resolve(), threads, request)
        ours = _measure(kind, target.resolve(), threads, request)
    if kind == "compiled":
        _require_same_bits(target.resolve(), vocab_size, context)
    names = [name for name in ours if name.startswith("l")]
    difference = max(float(np.abs(ours[n] - theirs[n][-len(ours[n]) :]).max() / np.abs(theirs[n]).max()) for n in names)
    same = np.concatenate([ours[n].argmax(1) == theirs[n][-len(ours[n]) :].argmax(1) for n in names])
    correlation = np.concatenate([_correlations(ours[n], theirs[n][-len(ours[n]) :]) for n in names])
    perplexity = divergence = None
    if text is not None:
        divergence = float(ours["divergence"])
        same = ours["choices"] == theirs["choices"]
        perplexity = (float(np.exp(ours["nll"].mean())), float(np.exp(theirs["nll"].mean())))
    figures = ("first_token_s", "token_ms", "peak_bytes")
    return Comparison(
        size_on_disk(target),
        len(same),
        difference,
        float(same.mean()),
        float(correlation.mean()),
        {name: float(ours[name]) for name in figures},
        {name: float(theirs[name]) for name in figures},
        perplexity,
        divergence,
    )


def _require_same_bits(target: Path, vocab_size: int, context: int) -> None:
    """UnsupportedModelError unless one thread and two give the same logits of a prompt that two share out."""
    request = {"p0": np.random.default_rng(1).integers(0, vocab_size, min(_SHARED_OUT, context))}
    one, two = (_measure("compiled", target, threads, request)["l0"] for threads in (1, 2))
    if not np.array_equal(one, two):
        raise UnsupportedModelError("The logits of the compiled model depend on the number of threads")


def _correlations(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Pearson's, of each row of `[S, V]` with the same row of the other: `[S]`."""
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (ours, theirs))
    result: npt.NDArray[np.float32] = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return result


def acceptable(comparison: Comparison, quantize: str) -> bool:
    """Whether the differences are those of rounding."""
    exact = quantize != "none" or comparison.difference <= _TOLERANCE
    return exact and comparison.correlation >= _CORRELATION[quantize]


def warning(comparison: Comparison, quantize: str) -> str | None:
    """One sentence where rounding moved the logits so far that the answers of a trained model would suffer."""
    if comparison.correlation >= _FAR:
        return None
    finer = "int8" if quantize == "int4" else "none"
    return (
        f"{quantize} moved the logits far: their correlation with float32's is {comparison.correlation:.2f}. Weights "
        f"that are not trained do that; if these are, compile with --quantize {finer}, or measure on text of your task "
        "(--text FILE)."
    )


def table(comparison: Comparison, seconds: float) -> str:
    """The figures as Markdown."""
    c, r = comparison.target, comparison.reference
    lines = [
        "| | compiled | transformers (float32) |",
        "| --- | --- | --- |",
        f"| size on disk, MB | {comparison.size_bytes / 1e6:.1f} | |",
        f"| compile time, s | {seconds:.0f} | |",
        f"| process start to first token, s | {c['first_token_s']:.2f} | {r['first_token_s']:.2f} |",
        f"| ms per token | {c['token_ms']:.2f} | {r['token_ms']:.2f} |",
        f"| peak memory, MB | {c['peak_bytes'] / 1e6:.0f} | {r['peak_bytes'] / 1e6:.0f} |",
        f"| largest difference of logits, relative | {comparison.difference:.1e} | |",
        f"| correlation of logits, mean over positions | {comparison.correlation:.5f} | |",
        f"| same most likely token | {100 * comparison.agreement:.2f} % | |",
    ]
    if comparison.perplexity:
        ours, theirs = comparison.perplexity
        change = 100 * (ours / theirs - 1)
        lines.append(
            f"| perplexity of {comparison.positions:,} held-out tokens | {ours:.4f} ({change:+.2f} %) | {theirs:.4f} |"
        )
        lines.append(f"| Kullback-Leibler divergence on it, nats a token | {comparison.divergence:.5f} | |")
    return "\n".join(lines)
