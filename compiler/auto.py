"""`--quantize auto`: int4 where it stays as near to float32 as the user asks for, else int8."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compiler import check
from compiler.build import Built
from compiler.errors import UnsupportedModelError


@dataclass(frozen=True)
class Choice:
    """What was compiled last and stays, and the sentence that says why."""

    quantize: str
    built: Built
    said: str


def choose(build: Callable[[str], Built], checkpoint: Path, out: Path, bound: float) -> Choice:
    """Have `build` compile `checkpoint` into `out` to int4, and where that lies further from float32 than `bound`, in
    nats a token of what the model writes, to int8. Raises what `build` does, and UnsupportedModelError.
    """
    four = build("int4")
    if four.text is None:
        return Choice("int8", build("int8"), "int8: without a text of the model's, int4 cannot be measured.")
    distance = _distance(checkpoint, out, four.text.held_out)
    found = f"int4 is {distance:.4f} nats a token from float32 on what the model writes"
    if distance <= bound:
        return Choice("int4", four, f"int4: {found}, within the bound of {bound:g}.")
    eight = build("int8")
    other = _distance(checkpoint, out, four.text.held_out)
    also = "" if other <= bound else ", which is beyond it too"
    return Choice("int8", eight, f"int8: {found}, beyond the bound of {bound:g}; int8 is {other:.4f}{also}.")


def _distance(checkpoint: Path, out: Path, text: Tensor) -> float:
    """Kullback-Leibler divergence of the artifact `out` from the checkpoint on the sequences `text` `[B, S]`."""
    divergence = check.compare(checkpoint, out, text.flatten().numpy(), window=text.shape[1]).divergence
    if divergence is None or not math.isfinite(divergence):
        raise UnsupportedModelError("The compiled model's logits are not finite")
    return divergence
