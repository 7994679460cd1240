"""Rows of logits from any engine: NativeRows from the one that has them, arrays from the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines.base import Engine, Logits, OutOfPagesError, Step
from engines.native_rows import NativeRow, NativeRows

if TYPE_CHECKING:
    Rows = Logits | NativeRows
    Row = Logits | NativeRow


def forward(engine: Engine, steps: Sequence[Step]) -> "list[Rows]":
    """`Engine.forward`, with logits that stay in native memory where the engine can."""
    natively = getattr(engine, "forward_natively", None)
    return list(engine.forward(steps) if natively is None else natively(steps))


def forward_each(engine: Engine, steps: Sequence[Step]) -> "list[Rows | Exception]":
    """Logits, or what went wrong, per step. Raises OutOfPagesError where the pass did not begin.

    When a pass fails, its steps are run one by one, so that only a step which fails alone has no logits.
    """
    try:
        return list(forward(engine, steps))
    except OutOfPagesError:
        raise
    except Exception as error:
        if len(steps) == 1:
            return [error]
    return [_forward_alone(engine, step) for step in steps]


def _forward_alone(engine: Engine, step: Step) -> "Rows | Exception":
    try:
        return forward(engine, [step])[0]
    except Exception as error:
        return error


def are_finite(rows: "Rows") -> bool:
    """Whether all logits are numbers."""
    if isinstance(rows, NativeRows):
        return rows.are_finite
    import numpy as np

    return bool(np.isfinite(rows).all())
