"""Read bandwidth and matrix throughput of this machine, and what a model must read and multiply for a token."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.errors import InputError
from compiler.sensitivity import SHARE

BYTES = {
    "float32": (4.0, 4.0),
    "bfloat16": (2.0, 2.0),
    "float16": (2.0, 2.0),
    "int8": (1.0, 1.0),
    "int4": ((4.25 + 2 * SHARE) / 8, 6.25 / 8),
}
"""Bytes of one weight: in a linear layer, and in the output head. Four bits come with a scale of 8 for every 32
weights, and with six bits in the head and in a share of the layers. llama.cpp's Q4_0 takes 4.5, and 8.5 in the head of
the shapes measured here."""
READ_BYTES = 512 * 2**20
"""Far beyond any cache."""
MATRIX = 1024


def _rate(work: float, action: Callable[[], object], threads: int, repeats: int) -> list[float]:
    """Work per second of each of `repeats` runs after one that does not count."""
    torch.set_num_threads(threads)
    action()
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        rates.append(work / (time.perf_counter() - begun))
    return rates


def read_bandwidth(threads: int, repeats: int) -> list[float]:
    """Bytes per second of a sum over memory that no cache holds."""
    buffer = torch.ones(READ_BYTES // 4)
    return _rate(READ_BYTES, buffer.sum, threads, repeats)


def matrix_throughput(dtype: str, threads: int, repeats: int) -> list[float]:
    """Multiplications and additions per second of a square matrix product."""
    kind = getattr(torch, dtype)
    if dtype == "int8":
        one = torch.randint(-100, 100, (MATRIX, MATRIX), dtype=kind)
        return _rate(2.0 * MATRIX**3, lambda: torch._int_mm(one, one), threads, repeats)
    one = torch.randn(MATRIX, MATRIX).to(kind)
    return _rate(2.0 * MATRIX**3, lambda: one @ one, threads, repeats)


def weights_per_token(directory: Path) -> tuple[int, int]:
    """Weights that every token reads: those of the layers, and those of the output head.

    They are those of transformers' own class for the checkpoint's config.json, which need not say whether the head is
    the input embedding: each architecture has its own default. An embedding that is not also the head is left out: a
    token reads one row of it. Raises InputError where transformers knows no such model.
    """
    try:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(directory)
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (KeyError, OSError, ValueError) as error:
        raise InputError(f"{directory} is not a model that transformers knows: {str(error).splitlines()[0]}") from None
    head = model.get_output_embeddings().weight
    rows = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    layers = sum(weight.numel() for weight in model.parameters() if id(weight) not in {*rows, id(head)})
    return layers, head.numel()
