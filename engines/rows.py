"""Rows of logits from any engine: NativeRows from the one that has them, arrays from the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.base import Engine, Logits, Step
from engines.native_rows import NativeRow, NativeRows

if TYPE_CHECKING:
    Rows = Logits | NativeRows
    Row = Logits | NativeRow


def forward(engine: Engine, steps: Sequence[Step]) -> "list[Rows]":
    """`Engine.forward`, with logits that stay in native memory where the engine can."""
    natively = getattr(engine, "forward_natively", None)
    return list(engine.forward(steps) if natively is None else natively(steps))


def are_finite(rows: "Rows") -> bool:
    """Whether all logits are numbers."""
    if isinstance(rows, NativeRows):
        return rows.are_finite
    import numpy as np

    return bool(np.isfinite(rows).all())
