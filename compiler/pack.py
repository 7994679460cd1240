"""Weight matrices -> the byte layouts that engines/native/packed.h describes. Knows nothing of graphs or files.

Every layout is tiles of 16 output rows, so one file serves every instruction set. int8 takes one scale per row; int4
and int6 one per row and 32 inputs, itself stored in 8 bits, as a multiple of its row's unit. Here scales are searched
for the least squared error of the weights; compiler/gptq.py finds better ones by what the weights are fed with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Quantised:
    """A matrix `[N, K]` as int4 or int6 numbers, K a multiple of 32: a weight is (code - half) * scale * unit."""

    bits: int
    units: Tensor
    """`float32 [N]`"""
    scales: Tensor
    """`int8 [N, K / 32]`"""
    codes: Tensor
    """`uint8 [N, K]`, from 0 on"""

    def values(self) -> Tensor:
        """The weights that these numbers stand for, `float32 [N, K]`."""
        values = (self.units[:, None] * self.scales).repeat_interleave(BLOCK, 1)
        return values.mul_(self.codes.float().sub_(2 ** (self.bits - 1)))


def padded(matrix: Tensor) -> Tensor:
    """`[N, K]` -> `float32 [N, ceil32(K)]`, zeros added; the matrix itself where none are missing."""
    missing = -matrix.shape[1] % BLOCK
    return torch.nn.functional.pad(matrix.float(), (0, missing)) if missing else matrix.float()


def _whole_tiles(matrix: Tensor) -> Tensor:
    """`[N, K]` -> `[ceil16(N), K]`, zeros added; the matrix itself where none are missing."""
    missing = -matrix.shape[0] % TILE
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing)) if missing else matrix


def pack_stacked(
    matrices: list[Tensor],
    kind: Kind,
    ready: Mapping[int, Quantised],
    done: Callable[[int], object] = lambda weights: None,
) -> tuple[Tensor, Kind]:
    """Weights of the same K, stacked on their rows, in a layout, and which: that of `kind`, unless all of them are
    `ready`, by their addresses, quantised to other bits.
    """
    found = [ready[matrix.data_ptr()] for matrix in matrices if matrix.data_ptr() in ready]
    if len(found) == len(matrices) and len({matrix.bits for matrix in found}) == 1:
        done(sum(matrix.numel() for matrix in matrices))
        return lay_out(found), next(each for each, bits in BITS.items() if bits == found[0].bits)
    return pack(torch.cat(matrices) if len(matrices) > 1 else matrices[0], kind, done), kind


def pack(weight: Tensor, kind: Kind, done: Callable[[int], object] = lambda weights: None) -> Tensor:
    """A weight `[N, K]` as `uint8 [bytes]` in the layout of `kind`. `done` is told how many weights more are packed."""
    if kind in BITS:
        return lay_out([quantise(padded(weight), BITS[kind], done)])
    if kind == Kind.FLOAT32:
        tiles = _whole_tiles(weight.float()).view(-1, TILE, weight.shape[1]).transpose(1, 2)
        packed = tiles.contiguous().view(-1).view(torch.uint8)
    else:
        packed = _pack_int8(_whole_tiles(padded(weight)))
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


def block_scales(groups: Tensor, units: Tensor, bits: int, importance: Tensor | None = None) -> Tensor:
    """`[G, 32]` and `[G]` -> the `[G]` numbers of units, -127 to 127, whose rounding leaves the least squared error.

    `importance` `[32]` is what each column's squared error counts, 1 without it. Round-to-nearest would give the
    largest magnitude the lowest code (as in llama.cpp's Q4_0). Trying scales around that one, of either sign, costs
    nothing at run time and removes a good part of the error.
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
            squares = _codes(groups, values, bits, rounded).mul_(values[:, None]).sub_(groups).square_()
            now = squares.sum(1) if importance is None else squares @ importance
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
def workers() -> Iterator[ThreadPoolExecutor]:
    """A thread for each vCPU, in which torch computes alone.

    Torch's own threads wait for each other after every operation: beside other work that takes ten times as long.
    """
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(usable_vcpus(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def row_units(weight: Tensor, bits: int) -> Tensor:
    """`[N, K]` -> `[N]`: what the scales of a row are multiples of."""
    largest_code = _LARGEST_CODE * 2 ** (bits - 1)
    units: Tensor = torch.linalg.vector_norm(weight, torch.inf, 1) / largest_code / _MOST_UNITS
    return units.clamp_min(1e-30)


def quantise(weight: Tensor, bits: int, done: Callable[[int], object] = lambda weights: None) -> Quantised:
    """`[N, K]`, K a multiple of 32, to the scales that `block_scales` finds."""
    blocks = weight.shape[1] // BLOCK
    groups, units = weight.reshape(-1, BLOCK), row_units(weight, bits)
    unit_of_group = units.repeat_interleave(blocks)
    scales = torch.empty(len(groups), dtype=torch.int8)
    codes = torch.empty(groups.shape, dtype=torch.uint8)

    def search(begin: int) -> int:
        some = slice(begin, begin + _SEARCHED_AT_A_TIME)
        found = block_scales(groups[some], unit_of_group[some], bits)
        scales[some] = found
        codes[some] = _codes(groups[some], found * unit_of_group[some], bits, torch.empty_like(groups[some])).add_(
            2 ** (bits - 1)
        )
        return groups[some].numel()

    with workers() as pool:
        for searched in pool.map(search, range(0, len(groups), _SEARCHED_AT_A_TIME)):
            done(searched)
    return Quantised(bits, units, scales.view(-1, blocks), codes.view(weight.shape))


def lay_out(matrices: Sequence[Quantised]) -> Tensor:
    """Matrices of the same K and bits, stacked on their rows -> `uint8 [bytes]`.

    One stream of lines of 64 bytes for each tile, scales just before their blocks.
    """
    bits, half = matrices[0].bits, 2 ** (matrices[0].bits - 1)
    units, scales, codes = (
        torch.cat([getattr(matrix, name) for matrix in matrices]) for name in ("units", "scales", "codes")
    )
    more = -len(units) % TILE
    units = torch.nn.functional.pad(units, (0, more), value=1e-30)
    scales = torch.nn.functional.pad(scales, (0, 0, 0, more))
    codes = torch.nn.functional.pad(codes, (0, 0, 0, more), value=half)
    tiles, blocks = len(units) // TILE, scales.shape[1]
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
