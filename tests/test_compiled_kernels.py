"""The kernels of engines/native against numpy: at every level this CPU can run, and at those that are emulated."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compiler import codegen
from compiler.ops import Kind
from compiler.pack import BITS, BLOCK, block_scales, pack
from tests import emulated
from tests.kernels import BEST, RUNNABLE, Floats, Kernels, empty_pages


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    emulated.require()
    return emulated.EmulatedKernels(tmp_path_factory.mktemp("aarch64"))


@pytest.fixture(scope="module")
def emulated_v4(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if not RUNNABLE or "x86-64-v4" in RUNNABLE:
        pytest.skip("for a CPU with AVX2 and without AVX-512")
    directory = tmp_path_factory.mktemp("emulated")
    emulated.build_v4(directory)
    return Kernels(directory)


@pytest.fixture(
    scope="module",
    params=[*RUNNABLE, *(pytest.param(name, marks=pytest.mark.slow) for name in ("aarch64", "emulated_v4"))],
)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    if request.param in RUNNABLE:
        return Kernels(request.getfixturevalue("llama_artifact") / request.param)
    found: Kernels = request.getfixturevalue(request.param)
    return found


def random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def unpacked(packed: npt.NDArray[np.uint8], n: int, k: int, kind: Kind) -> Floats:
    """The weight `[n, k]` that packed bytes stand for, read as packed.h's comment describes them."""
    tiles, blocks = -(-n // 16), -(-k // BLOCK)
    if kind == Kind.FLOAT32:
        return packed.view(np.float32).reshape(tiles, k, 16).transpose(0, 2, 1).reshape(-1, k)[:n]
    body = packed.reshape(tiles, -1)
    rows = body[:, :64].copy().view(np.float32)
    if kind == Kind.INT8:
        codes = body[:, 64:].reshape(tiles, blocks * 8, 16, 4).transpose(0, 2, 1, 3).reshape(tiles, 16, -1)
        return ((codes.astype(np.float32) - 128) * rows[..., None]).reshape(tiles * 16, -1)[:n, :k]
    scales, at, bits = rows, 64, BITS[kind]
    values = np.empty((blocks, tiles, 8, 16, 4), np.float32)
    for b in range(blocks):
        if b % 4 == 0:
            scales, at = body[:, at : at + 64].view(np.int8).astype(np.float32) * np.tile(rows, 4), at + 64
        lines, at = body[:, at : at + bits * 64].reshape(tiles, bits, 16, 4), at + bits * 64
        found = np.stack([lines[:, :4] & 15, lines[:, :4] >> 4], 2).reshape(tiles, 8, 16, 4)
        if bits == 6:
            found += 16 * np.stack([lines[:, 4:] >> 2 * j & 3 for j in range(4)], 2).reshape(found.shape)
        values[b] = (found - 2.0 ** (bits - 1)) * scales[:, None, b % 4 * 16 :, None][:, :, :16]
    return values.transpose(1, 3, 0, 2, 4).reshape(tiles * 16, -1)[:n, :k]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 48, 64), (1, 50, 70), (3, 17, 33), (7, 130, 96), (53, 100, 200), (300, 100, 200)]
)
def test_linear_equals_numpy_on_the_weights_that_were_packed(
    kernels: Kernels, kind: Kind, m: int, n: int, k: int
) -> None:
    x, weight, bias = random(1, m, k), random(n, k, seed=1), random(n, seed=2)
    packed = pack(torch.from_numpy(weight), kind).numpy()
    exact = x.astype(np.float64) @ unpacked(packed, n, k, kind).T.astype(np.float64) + bias
    tolerance = 1e-5 if kind == Kind.FLOAT32 else 2e-2  # activations are rounded to 8 bits
    got = kernels.linear(x, packed, bias, n, kind)
    assert np.abs(got - exact).max() <= tolerance * np.abs(exact).max()
    assert np.abs(got - bias - kernels.linear(x, packed, None, n, kind)).max() < 1e-4


@pytest.mark.parametrize("kind", [Kind.INT8, Kind.INT4, Kind.INT6])
def test_activations_that_eight_bits_hold_give_exact_products(kernels: Kernels, kind: Kind) -> None:
    x = np.random.default_rng(0).integers(-127, 128, (1, 5, 128)).astype(np.float32)
    x[..., ::64] = 127  # every group's scale is 1
    packed = pack(torch.from_numpy(random(80, 128)), kind).numpy()
    exact = x.astype(np.float64) @ unpacked(packed, 80, 128, kind).T.astype(np.float64)
    np.testing.assert_allclose(kernels.linear(x, packed, None, 80, kind), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [Kind.INT4, Kind.INT6])
def test_weights_widened_for_a_long_prompt_are_rounded_to_nearest(kernels: Kernels, kind: Kind) -> None:
    x = np.random.default_rng(0).integers(0, 128, (1, 53, 128)).astype(np.float32)  # all positive: a bias would add up
    x[..., ::64] = 127
    packed = pack(torch.from_numpy(random(80, 128)), kind).numpy()
    exact = x.astype(np.float64) @ unpacked(packed, 80, 128, kind).T.astype(np.float64)
    assert np.abs(kernels.linear(x, packed, None, 80, kind) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("kind", Kind)
def test_a_row_has_the_same_bits_in_whatever_number_of_rows(kernels: Kernels, kind: Kind) -> None:
    most = 35  # more than any number of rows that has code of its own
    x, bias = random(1, most, 200), random(130, seed=2)
    packed = pack(torch.from_numpy(random(130, 200, seed=1)), kind).numpy()
    alone = np.concatenate([kernels.linear(x[:, i : i + 1], packed, bias, 130, kind) for i in range(most)], axis=1)
    for rows in range(2, most + 1):
        np.testing.assert_array_equal(kernels.linear(x[:, :rows], packed, bias, 130, kind), alone[:, :rows])


@pytest.mark.skipif("x86-64-v3" not in RUNNABLE, reason="a CPU with AVX2 is needed")
@pytest.mark.parametrize("kind", [Kind.INT4, Kind.INT6])
def test_with_avx2_a_row_has_the_same_bits_in_a_long_prompt(llama_artifact: Path, kind: Kind) -> None:
    kernels = Kernels(llama_artifact / "x86-64-v3")
    x = 10 * random(1, 300, 608)
    packed = pack(torch.from_numpy(random(70, 608, seed=1)), kind).numpy()
    whole = kernels.linear(x, packed, None, 70, kind)
    for begin, end in ((0, 1), (1, 40), (40, 300)):
        np.testing.assert_array_equal(kernels.linear(x[:, begin:end], packed, None, 70, kind), whole[:, begin:end])


@pytest.mark.parametrize(("kind", "least"), [(Kind.INT8, -1), (Kind.INT4, -8 / 7), (Kind.INT6, -32 / 31)])
@pytest.mark.parametrize("rows", [7, 35])
def test_products_of_the_largest_numbers_are_exact(kernels: Kernels, kind: Kind, least: float, rows: int) -> None:
    weight = torch.ones(32, 160)
    weight[:, ::32] = least  # so that all others have the largest code
    packed = pack(weight, kind).numpy()
    for even, odd in ((127, 127), (127, -127), (-127, -127)):
        x = np.full((1, rows, 160), even, np.float32)
        x[..., 1::2] = odd
        exact = x.astype(np.float64) @ unpacked(packed, 32, 160, kind).T.astype(np.float64)
        np.testing.assert_allclose(kernels.linear(x, packed, None, 32, kind), exact, rtol=1e-5)


def test_an_outlier_does_not_blur_other_groups(kernels: Kernels) -> None:
    x = random(1, 1, 128)
    x[0, 0, 0] = 10_000
    weight = random(32, 128, seed=1)
    weight[:, :64] = 0
    packed = pack(torch.from_numpy(weight), Kind.INT8).numpy()
    exact = x @ unpacked(packed, 32, 128, Kind.INT8).T
    assert np.abs(kernels.linear(x, packed, None, 32, Kind.INT8) - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.INT8, Kind.INT6])
def test_embedding_returns_the_rows_of_the_packed_weight(kernels: Kernels, kind: Kind) -> None:
    packed = pack(torch.from_numpy(random(37, 70)), kind).numpy()
    ids = np.array([[0, 36, 15, 16]])
    np.testing.assert_allclose(kernels.embedding(ids, packed, 70, kind), unpacked(packed, 37, 70, kind)[ids], rtol=1e-6)


def reference_attention(q: Floats, k: Floats, v: Floats, past: int, softcap: float, window: int) -> Floats:
    """q [1, h, S, d]; k, v [1, kv, past + S, d] -> [1, S, h, dv]."""
    group = q.shape[1] // k.shape[1]
    scores = np.einsum("bhsd,bhtd->bhst", q, np.repeat(k, group, 1)) * q.shape[-1] ** -0.5
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    at, seen = np.arange(past, past + q.shape[2])[:, None], np.arange(k.shape[2])[None]
    scores[..., (seen > at) | ((window > 0) & (seen <= at - window))] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result: Floats = np.einsum("bhst,bhtd->bshd", weights, np.repeat(v, group, 1))
    return result


@pytest.mark.parametrize("element", [4, 2], ids=["float32 cache", "cache of words"])
@pytest.mark.parametrize(("softcap", "window"), [(0.0, 0), (0.0, 20), (5.0, 0)], ids=["plain", "window", "softcap"])
@pytest.mark.parametrize(("heads", "kv_heads", "d", "dv"), [(6, 2, 20, 24), (4, 4, 64, 64), (9, 1, 16, 16)])
def test_attention_over_a_growing_cache_equals_numpy(
    kernels: Kernels, element: int, softcap: float, window: int, heads: int, kv_heads: int, d: int, dv: int
) -> None:
    total = 400
    q, k, v = random(1, heads, total, d), random(1, kv_heads, total, d, seed=1), random(1, kv_heads, total, dv, seed=2)
    pages = empty_pages(total, kv_heads, d, dv, element)
    expected = reference_attention(q, k, v, 0, softcap, window)
    for begin, end in ((0, 1), (1, 30), (30, 32), (32, 300), (300, 301), (301, 310), (310, 400)):
        new = slice(begin, end)
        got = kernels.attention(q[:, :, new], k[:, :, new], v[:, :, new], pages, begin, element, softcap, window)
        np.testing.assert_allclose(got, expected[:, begin:end], atol=1e-5 if element == 4 else 2e-3)


@pytest.mark.parametrize("d", [16, 64, 100, 256])
@pytest.mark.parametrize("opposed", [False, True])
def test_the_largest_products_of_words_do_not_overflow(kernels: Kernels, d: int, opposed: bool) -> None:
    total = 128  # a block, of whose products each is the largest there is
    q, ones = np.ones((1, 1, total, d), np.float32), np.ones((1, 1, total, d), np.float32)
    if opposed:
        ones[:, :, 1::2] = -1
    expected = reference_attention(q, ones, ones, 0, 0.0, 0)
    for sign in (1, -1):
        got = kernels.attention(q, ones, sign * ones, empty_pages(total, 1, d, d, 2), 0, 2, 0.0, 0)
        np.testing.assert_allclose(got, sign * expected, atol=1e-4)


def test_attention_to_tokens_of_very_different_sizes_is_near_numpy_s(kernels: Kernels) -> None:
    total, d = 200, 64
    sizes = 10.0 ** np.random.default_rng(3).uniform(-3, 3, (1, 2, total, 1)).astype(np.float32)
    q, k, v = random(1, 4, total, d), random(1, 2, total, d, seed=1), random(1, 2, total, d, seed=2) * sizes
    q[..., 5] *= 30  # what one dimension has at most must not cost the others their precision
    k[..., 7] += 20
    expected = reference_attention(q, k, v, 0, 0.0, 0)
    got = kernels.attention(q, k, v, empty_pages(total, 2, d, d, 2), 0, 2, 0.0, 0)
    largest = np.abs(expected).max(-1, keepdims=True)
    assert np.abs((got - expected) / largest).mean() < 2e-3
    assert np.abs((got - expected) / largest).max() < 4e-2


@pytest.mark.parametrize("element", [4, 2])
def test_attention_to_nothing_but_zeros_is_zero(kernels: Kernels, element: int) -> None:
    q, k, v = random(1, 2, 40, 16), np.zeros((1, 1, 40, 16), np.float32), np.zeros((1, 1, 40, 16), np.float32)
    got = kernels.attention(q, k, v, empty_pages(40, 1, 16, 16, element), 0, element, 0.0, 0)
    np.testing.assert_array_equal(got, 0)


@pytest.mark.slow
def test_linears_and_the_cache_on_aarch64_are_the_bits_of_this_machine(aarch64: Kernels, tmp_path: Path) -> None:
    codegen.build_runtime(BEST, tmp_path)
    here = Kernels(tmp_path)
    for kind in Kind:
        most = 47 if BEST == "x86-64-v3" else 53  # from 48 rows on AVX2 alone does not widen four and six bits
        for m, n, k in ((1, 50, 70), (7, 130, 96), (most, 100, 200)):
            packed = pack(torch.from_numpy(random(n, k, seed=1)), kind).numpy()
            ours, theirs = (
                each.linear(random(1, m, k), packed, random(n, seed=2), n, kind) for each in (aarch64, here)
            )
            np.testing.assert_array_equal(ours, theirs)
    queries, keys, values = random(1, 4, 40, 20), random(1, 2, 40, 20, seed=1), random(1, 2, 40, 24, seed=2)
    for element in (4, 2):
        pages = [empty_pages(48, 2, 20, 24, element) for _ in range(2)]
        ours, theirs = (
            each.attention(queries, keys, values, of_its_own, 0, element, 0.0, 0)
            for each, of_its_own in zip((aarch64, here), pages, strict=True)
        )
        np.testing.assert_array_equal(pages[0], pages[1])
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_searched_int4_scales_beat_those_of_the_largest_weight() -> None:
    groups = torch.from_numpy(random(500, 32))

    def error(scales: torch.Tensor) -> float:
        codes = (groups / scales[:, None]).round().clamp(-8, 7)
        return float((codes * scales[:, None] - groups).square().mean())

    units = (groups.abs().max() / 6.5 / 127).expand(len(groups))  # as in one row
    counts = block_scales(groups, units, 4)
    assert counts.abs().max() <= 127
    assert (counts == counts.round()).all()
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))[:, 0]
    assert error(counts * units) < 0.92 * error(extreme / -8)  # llama.cpp's Q4_0


@pytest.mark.parametrize(("kind", "most"), [(Kind.INT8, 0.012), (Kind.INT6, 0.025), (Kind.INT4, 0.1)])
def test_packing_loses_no_more_than_its_bits(kind: Kind, most: float) -> None:
    weight = random(64, 576)
    lost = unpacked(pack(torch.from_numpy(weight), kind).numpy(), 64, 576, kind) - weight
    assert np.sqrt(np.square(lost).mean()) < most


def test_every_level_packs_a_matrix_of_zeros() -> None:
    for kind in Kind:
        assert not unpacked(pack(torch.zeros(20, 40), kind).numpy(), 20, 40, kind).any()
