"""Weight matrices -> the byte layouts that engines/native/packed.h describes. Knows nothing of graphs or files.

Every layout is tiles of 16 output rows, so one file serves every instruction set. Scales are found without calibration
data: int8 takes one scale per row; int4 and int6 one per row and 32 inputs, searched for the least squared error and
itself stored in 8 bits, as a multiple of its row's unit.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from compiler.ops import Kind
from engines.machine import usable_vcpus

TILE = 16
BLOCK = 32
BITS = {Kind.INT4: 4, Kind.INT6: 6}
_SCALES_TOGETHER = 4  # blocks whose scales fill one line of 64 bytes
_MOST_UNITS = 127
_LARGEST_CODE = 0.8
"""The part of the largest code that a row's largest weight must be able to have: the search seldom wants more."""
_DIVISORS = torch.linspace(0.63, 1.19, 20).tolist()
"""Scales to try: the largest weight divided by these parts of the largest code, of either sign."""
_SEARCHED_AT_A_TIME = 2**13  # groups, so that they stay in a cache


def _padded(weight: Tensor, inputs: int) -> Tensor:
    """`[N, K]` -> `[ceil16(N), inputs]`, zeros added; the weight itself where none are missing."""
    n, k = weight.shape
    missing = (0, inputs - k, 0, -n % TILE)
    return torch.nn.functional.pad(weight.float(), missing) if any(missing) else weight.float()


def pack(weight: Tensor, kind: Kind, done: Callable[[int], object] = lambda weights: None) -> Tensor:
    """A weight `[N, K]` as `uint8 [bytes]` in the layout of `kind`. `done` is told how many weights more are packed."""
    k = weight.shape[1]
    if kind == Kind.FLOAT32:
        tiles = _padded(weight, k).view(-1, TILE, k).transpose(1, 2)
        packed = tiles.contiguous().view(-1).view(torch.uint8)
    else:
        padded = _padded(weight, -(-k // BLOCK) * BLOCK)
        if kind in BITS:
            return _pack_blocks(padded, BITS[kind], done)
        packed = _pack_int8(padded)
    done(weight.numel())
    return packed


def _pack_int8(weight: Tensor) -> Tensor:
    """`[16 t, K]` -> per tile: 16 float scales, then `[K/4, 16, 4]` weights + 128."""
    n, k = weight.shape
    scales = (torch.linalg.vector_norm(weight, torch.inf, 1) / 127).clamp_min(1e-30)
    quants = (weight / scales[:, None]).round_().clamp_(-127, 127).add_(128).to(torch.uint8)
    tiles = quants.view(n // TILE, TILE, k // 4, 4).transpose(1, 2).reshape(n // TILE, -1)
    header = scales.view(n // TILE, TILE).contiguous().view(torch.uint8).view(n // TILE, -1)
    return torch.cat([header, tiles], 1).view(-1)


def block_scales(groups: Tensor, units: Tensor, bits: int) -> Tensor:
    """`[G, 32]` and `[G]` -> the `[G]` numbers of units, -127 to 127, whose rounding leaves the least squared error.

    Round-to-nearest would give the largest magnitude the lowest code (as in llama.cpp's Q4_0). Trying scales around
    that one, of either sign, costs nothing at run time and removes a good part of the error.
    """
    half = 2 ** (bits - 1)
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True)).squeeze(1)
    best = torch.zeros_like(extreme)
    error = torch.full_like(extreme, torch.inf)
    rounded = torch.empty_like(groups)
    for part in _DIVISORS:
        for divisor in (-part * half, part * half):
            scale = (extreme / divisor / units).round_().clamp_(-_MOST_UNITS, _MOST_UNITS)
            values = scale * units
            now = _codes(groups, values, bits, rounded).mul_(values[:, None]).sub_(groups).square_().sum(1)
            better = now < error
            best = torch.where(better, scale, best)
            error = torch.where(better, now, error)
    return best


def _codes(groups: Tensor, scales: Tensor, bits: int, out: Tensor) -> Tensor:
    """`[G, 32]` and `[G]` -> the integers of `bits` bits, negative ones too, that stand for the groups, in `out`."""
    half = 2 ** (bits - 1)
    torch.div(groups, torch.where(scales == 0, 1.0, scales)[:, None], out=out)
    return out.round_().clamp_(-half, half - 1)


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """A thread for each vCPU, in which torch computes alone.

    Torch's own threads wait for each other after every operation: beside other work that takes ten times as long.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(usable_vcpus(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _search(groups: Tensor, units: Tensor, bits: int, done: Callable[[int], object]) -> tuple[Tensor, Tensor]:
    """`[G, 32]` and `[G]` -> the groups' scales in units, `int8 [G]`, and their codes from 0 on, `uint8 [G, 32]`."""
    scales = torch.empty(len(groups), dtype=torch.int8)
    codes = torch.empty(groups.shape, dtype=torch.uint8)

    def search(begin: int) -> int:
        some = slice(begin, begin + _SEARCHED_AT_A_TIME)
        found = block_scales(groups[some], units[some], bits)
        scales[some] = found
        codes[some] = _codes(groups[some], found * units[some], bits, torch.empty_like(groups[some])).add_(
            2 ** (bits - 1)
        )
        return groups[some].numel()

    with _workers() as pool:
        for searched in pool.map(search, range(0, len(groups), _SEARCHED_AT_A_TIME)):
            done(searched)
    return scales, codes


def _pack_blocks(weight: Tensor, bits: int, done: Callable[[int], object]) -> Tensor:
    """`[16 t, K]` -> int4 or int6 tiles: one stream of lines of 64 bytes, scales just before their blocks."""
    n, k = weight.shape
    tiles, blocks, half = n // TILE, k // BLOCK, 2 ** (bits - 1)
    units = (torch.linalg.vector_norm(weight, torch.inf, 1) / (_LARGEST_CODE * half) / _MOST_UNITS).clamp_min(
        1e-30
    )  # [n]
    scales, codes = _search(weight.reshape(-1, BLOCK), units.repeat_interleave(blocks), bits, done)
    # [tile, row, block, 8, 4 inputs] -> 8 lines of [tile, block, row * 4 inputs]
    lines = codes.view(tiles, TILE, blocks, 8, 4).permute(3, 0, 2, 1, 4).reshape(8, tiles, blocks, 64)
    parts = [(lines[j] & 15) | (lines[j + 1] << 4) for j in range(0, 8, 2)]
    if bits == 6:
        upper = lines >> 4
        parts += [upper[j] | upper[j + 1] << 2 | upper[j + 2] << 4 | upper[j + 3] << 6 for j in (0, 4)]
    missing = -blocks % _SCALES_TOGETHER
    bodies = torch.nn.functional.pad(torch.cat(parts, 2), (0, 0, 0, missing))  # [tile, block, bytes]
    together = (blocks + missing) // _SCALES_TOGETHER
    counts = scales.view(torch.uint8).view(tiles, TILE, blocks).transpose(1, 2)
    counts = torch.nn.functional.pad(counts, (0, 0, 0, missing)).reshape(tiles, together, -1)
    stream = torch.cat([counts, bodies.view(tiles, together, -1)], 2).view(tiles, -1)
    header = units.view(tiles, TILE).contiguous().view(torch.uint8).view(tiles, -1)
    return torch.cat([header, stream[:, : stream.shape[1] - missing * bodies.shape[2]]], 1).view(-1)
