"""Weights to four bits by what their inputs look like: GPTQ (Frantar et al. 2022, arXiv 2210.17323).

Columns are rounded one after the other, and what rounding one of them does to the layer's output is made up for by the
columns that are still to come, as far as their inputs go together. The scale of 32 columns is searched for as
compiler/pack.py does, with what remains of each column's error then. So is the layout. Knows nothing of models.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compiler.pack import BLOCK, Quantised, block_scales, row_units, workers

DAMPING = 0.03
"""Of the mean of the Hessian's diagonal, added to it: inputs that never differ would leave it singular."""
_CORRECTED = 0.75
"""The part of an earlier layers' error that a layer makes up for: all of it would fit the calibration text too well."""
_ROWS_AT_A_TIME = 512


def propagation(hessian: Tensor) -> Tensor:
    """`[K, K]`, the sum over tokens of x x^T -> the upper triangular U of the same size for which U^T U is its inverse.

    Rounding column i changes the columns j after it by the error times -U[i, j] / U[i, i].
    """
    damped = hessian.clone()
    damped.diagonal().add_(DAMPING * hessian.diagonal().mean())
    # Cholesky's factor from the last column backwards: damped = R R^T with R upper triangular, and U = R^-1.
    upper = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    u: Tensor = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
    return u


def corrected(weight: Tensor, u: Tensor, differences: Tensor) -> Tensor:
    """`[N, K]` -> the weight whose output on what a layer is fed with is nearest to `weight`'s on what it should be.

    `differences` `[K, K]` is the sum over tokens of (x' - x) x^T, x' being what the layer is fed with in float32. By
    least squares, as GPTAQ does (Li et al. 2025, arXiv 2504.02692), and only a part of the way.
    """
    return weight + _CORRECTED * ((weight @ differences) @ u.t()) @ u


def quantise(weight: Tensor, u: Tensor, bits: int, done: Callable[[int], object] = lambda weights: None) -> Quantised:
    """`[N, K]`, K a multiple of 32, and `propagation` of its inputs. `done` is told of weights that are ready."""
    units, half = row_units(weight, bits), 2 ** (bits - 1)
    scales = torch.empty(len(weight), weight.shape[1] // BLOCK, dtype=torch.int8)
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    importance = u.diagonal() ** -2  # of a column's error, after the columns that follow have made up for it

    def rows(begin: int) -> int:
        some = slice(begin, begin + _ROWS_AT_A_TIME)
        left = weight[some].clone()
        for block in range(scales.shape[1]):
            now, after = slice(block * BLOCK, (block + 1) * BLOCK), slice((block + 1) * BLOCK, None)
            scale = block_scales(left[:, now], units[some], bits, importance[now])
            found, errors = _round_columns(left[:, now], u[now, now], scale * units[some], bits)
            scales[some, block] = scale.to(torch.int8)
            codes[some, now] = found.add_(half).to(torch.uint8)
            left[:, after] -= errors @ u[now, after]
        return weight[some].numel()

    with workers() as pool:
        for ready in pool.map(rows, range(0, len(weight), _ROWS_AT_A_TIME)):
            done(ready)
    return Quantised(bits, units, scales, codes)


def _round_columns(block: Tensor, corner: Tensor, scales: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A block `[R, 32]` with its scales `[R]`, and `corner` `[32, 32]` of U -> the codes from -half on, and the errors
    by which U changes later columns, of the same shape.
    """
    half = 2 ** (bits - 1)
    left = block.t().contiguous()
    codes, inverse = torch.empty_like(left), torch.where(scales == 0, 0.0, 1 / scales)
    for i in range(len(left)):
        torch.mul(left[i], inverse, out=codes[i]).round_().clamp_(-half, half - 1)
        left[i].addcmul_(codes[i], scales, value=-1).div_(corner[i, i])
        left[i + 1 :].addcmul_(left[i], corner[i, i + 1 :, None], value=-1)
    return codes.t(), left.t()
