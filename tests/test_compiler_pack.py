"""The search for scales, made fast, chooses what a search written down plainly chooses."""

import numpy as np
import pytest
import torch

from compiler import pack as module
from compiler.ops import Kind
from compiler.pack import BITS, BLOCK, pack
from tests.kernels import Floats
from tests.test_compiled_kernels import random, unpacked


def searched_plainly(weight: Floats, bits: int) -> Floats:
    """What packing makes of a weight `[N, K]`: each row's blocks one after the other, each candidate one by one."""
    half, (n, k) = 2 ** (bits - 1), weight.shape
    divisors = torch.linspace(0.63, 1.19, 20).tolist()
    result = np.zeros_like(weight)
    for row in range(n):
        unit = max(np.abs(weight[row]).max() / np.float32(0.8 * half) / np.float32(127), np.float32(1e-30))
        for begin in range(0, k, BLOCK):
            group = weight[row, begin : begin + BLOCK]
            extreme = group[np.abs(group).argmax()]
            least = np.inf
            for divisor in (sign * part * half for part in divisors for sign in (-1, 1)):
                scale = np.clip(np.round(extreme / np.float32(divisor) / unit), -127, 127) * unit
                codes = np.clip(np.round(group / (scale or np.float32(1))), -half, half - 1)
                error = np.square((codes * scale - group).astype(np.float64)).sum()
                if error < least:
                    least, result[row, begin : begin + BLOCK] = error, codes * scale
    return result


@pytest.mark.parametrize("kind", [Kind.INT4, Kind.INT6])
@pytest.mark.parametrize(("n", "k"), [(1, 32), (16, 64), (19, 100)])
def test_the_scales_are_those_of_a_plain_search(kind: Kind, n: int, k: int) -> None:
    weight = random(n, k) * np.float32(0.02)
    weight[0, :5] = 0
    np.testing.assert_array_equal(
        unpacked(pack(torch.from_numpy(weight), kind).numpy(), n, k, kind), searched_plainly(weight, BITS[kind])
    )


@pytest.mark.parametrize("kind", [Kind.INT4, Kind.INT6])
def test_the_bytes_do_not_depend_on_how_many_groups_are_searched_at_a_time(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.from_numpy(random(64, 320))
    whole = pack(weight, kind)
    monkeypatch.setattr(module, "_SEARCHED_AT_A_TIME", 7)
    assert torch.equal(pack(weight, kind), whole)


@pytest.mark.parametrize("kind", Kind)
def test_progress_ends_at_the_number_of_weights(kind: Kind) -> None:
    told: list[int] = []
    pack(torch.from_numpy(random(64, 320)), kind, told.append)
    assert sum(told) == 64 * 320


def test_a_matrix_is_packed_in_steps_that_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEARCHED_AT_A_TIME", 100)
    told: list[int] = []
    pack(torch.from_numpy(random(64, 320)), Kind.INT4, told.append)
    assert told == [100 * BLOCK] * 6 + [40 * BLOCK]
