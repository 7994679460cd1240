"""Weight matrices -> the byte layouts that compiler/native/linear.cpp reads. Knows nothing of graphs or files.

Every layout is tiles of 16 output rows, so one file serves every instruction set. Scales are found without calibration
data: int8 takes one scale per row; int4 one per row and 32 inputs, searched for the least squared error.
"""

import torch
from torch import Tensor

from compiler.ops import Kind

TILE = 16
BLOCK = 32
_CANDIDATES = 33


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


def int4_scales(groups: Tensor) -> Tensor:
    """`[G, 32]` -> the scale `[G]` whose rounding to -8..7 leaves the least squared error.

    Round-to-nearest would give the largest magnitude the code -8 (as in llama.cpp's Q4_0). Trying scales around that
    one, of either sign, costs nothing at run time and removes a good part of the error.
    """
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True)).squeeze(1)
    best = torch.zeros_like(extreme)
    error = torch.full_like(extreme, torch.inf)
    for divisor in torch.linspace(-9.5, 9.5, 2 * _CANDIDATES).tolist():
        if abs(divisor) < 5:
            continue
        scale = (extreme / divisor).half().float()
        safe = torch.where(scale == 0, 1.0, scale)[:, None]
        codes = (groups / safe).round_().clamp_(-8, 7)
        now = (codes * safe - groups).square_().sum(1)
        better = now < error
        best = torch.where(better, scale, best)
        error = torch.where(better, now, error)
    return best


def _pack_int4(weight: Tensor) -> Tensor:
    """`[16 t, K]` -> per tile: 16 float row scales, then per 32 inputs 16 half scales and `[4, 16, 4]` byte pairs."""
    n, k = weight.shape
    groups = weight.reshape(-1, BLOCK)
    scales = int4_scales(groups)
    safe = torch.where(scales == 0, 1.0, scales)[:, None]
    codes = (groups / safe).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    tiles, blocks = n // TILE, k // BLOCK
    # [tile, row, block, 4 lines, low or high, 4 inputs] -> [tile, block, line, row, 4 inputs]
    codes = codes.view(tiles, TILE, blocks, 4, 2, 4).permute(0, 2, 3, 1, 5, 4)
    pairs = (codes[..., 0] | (codes[..., 1] << 4)).reshape(tiles, blocks, -1)
    halves = scales.view(tiles, TILE, blocks).transpose(1, 2).contiguous().half().view(torch.uint8)
    body = torch.cat([halves.view(tiles, blocks, -1), pairs], 2).view(tiles, -1)
    # The scale with which a row would be int8: the native code widens tiles with it for long prompts.
    rows = (scales.abs().view(n, blocks).amax(1) * 8 / 127).clamp_min(1e-30)
    header = rows.view(tiles, TILE).contiguous().view(torch.uint8).view(tiles, -1)
    return torch.cat([header, body], 1).view(-1)
