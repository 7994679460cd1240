"""Weight matrices -> the byte layouts that compiler/native/linear.cpp reads. Knows nothing of graphs or files.

Every layout is tiles of 16 output rows, so one file serves every instruction set. Scales are found without calibration
data: int8 takes one scale per row; int4 one per row and 32 inputs, searched for the least squared error and itself
stored in 8 bits, as a multiple of its row's unit.
"""

import torch
from torch import Tensor

from compiler.ops import Kind

TILE = 16
BLOCK = 32
_CANDIDATES = 33
_MOST_UNITS = 127
_LARGEST_CODE = 6.5
"""The code that a row's largest weight must be able to have; with larger ones the search finds less error."""


def _padded(weight: Tensor, inputs: int) -> Tensor:
    """`[N, K]` -> `[ceil16(N), inputs]`, zeros added."""
    n, k = weight.shape
    return torch.nn.functional.pad(weight.float(), (0, inputs - k, 0, -n % TILE))


def pack(weight: Tensor, kind: Kind) -> Tensor:
    """A weight `[N, K]` as `uint8 [bytes]` in the layout of `kind`."""
    k = weight.shape[1]
    if kind == Kind.FLOAT32:
        tiles = _padded(weight, k).view(-1, TILE, k).transpose(1, 2)
        return tiles.contiguous().view(-1).view(torch.uint8)
    padded = _padded(weight, -(-k // BLOCK) * BLOCK)
    return _pack_int8(padded) if kind == Kind.INT8 else _pack_int4(padded)


def _pack_int8(weight: Tensor) -> Tensor:
    """`[16 t, K]` -> per tile: 16 float scales, then `[K/4, 16, 4]` weights + 128."""
    n, k = weight.shape
    scales = (weight.abs().amax(1) / 127).clamp_min(1e-30)
    quants = (weight / scales[:, None]).round_().clamp_(-127, 127).add_(128).to(torch.uint8)
    tiles = quants.view(n // TILE, TILE, k // 4, 4).transpose(1, 2).reshape(n // TILE, -1)
    header = scales.view(n // TILE, TILE).contiguous().view(torch.uint8).view(n // TILE, -1)
    return torch.cat([header, tiles], 1).view(-1)


def int4_scales(groups: Tensor, units: Tensor) -> Tensor:
    """`[G, 32]` and `[G]` -> the `[G]` numbers of units, -127 to 127, whose rounding to -8..7 leaves the least error.

    Round-to-nearest would give the largest magnitude the code -8 (as in llama.cpp's Q4_0). Trying scales around that
    one, of either sign, costs nothing at run time and removes a good part of the squared error.
    """
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True)).squeeze(1)
    best = torch.zeros_like(extreme)
    error = torch.full_like(extreme, torch.inf)
    for divisor in torch.linspace(-9.5, 9.5, 2 * _CANDIDATES).tolist():
        if abs(divisor) < 5:
            continue
        scale = (extreme / divisor / units).round_().clamp_(-_MOST_UNITS, _MOST_UNITS)
        now = (_int4_codes(groups, scale * units) * (scale * units)[:, None] - groups).square_().sum(1)
        better = now < error
        best = torch.where(better, scale, best)
        error = torch.where(better, now, error)
    return best


def _int4_codes(groups: Tensor, scales: Tensor) -> Tensor:
    """`[G, 32]`, `[G]` -> the integers `[G, 32]` in -8..7 that stand for the groups."""
    return (groups / torch.where(scales == 0, 1.0, scales)[:, None]).round_().clamp_(-8, 7)


def _pack_int4(weight: Tensor) -> Tensor:
    """`[16 t, K]` -> per tile: 16 float units, `[K/32, 16]` scales, `[K/32, 4, 16, 4]` byte pairs."""
    n, k = weight.shape
    tiles, blocks = n // TILE, k // BLOCK
    groups = weight.reshape(-1, BLOCK)
    units = (weight.abs().amax(1) / _LARGEST_CODE / _MOST_UNITS).clamp_min(1e-30)  # [n]
    each = units.repeat_interleave(blocks)
    scales = int4_scales(groups, each)
    codes = _int4_codes(groups, scales * each).add_(8).to(torch.uint8)
    # [tile, row, block, 4 lines, low or high, 4 inputs] -> [tile, block, line, row, 4 inputs]
    codes = codes.view(tiles, TILE, blocks, 4, 2, 4).permute(0, 2, 3, 1, 5, 4)
    pairs = (codes[..., 0] | (codes[..., 1] << 4)).reshape(tiles, -1)
    header = units.view(tiles, TILE).contiguous().view(torch.uint8).view(tiles, -1)
    counts = scales.to(torch.int8).view(tiles, TILE, blocks).transpose(1, 2).reshape(tiles, -1).view(torch.uint8)
    counts = torch.nn.functional.pad(counts, (0, -counts.shape[1] % 64))
    return torch.cat([header, counts, pairs], 1).view(-1)
