"""Tokens chosen in native memory are those that the numpy reference chooses, whatever was asked for."""

import ctypes
from pathlib import Path
from random import Random

import numpy as np
import pytest

from engines.base import Logits
from engines.native_rows import NativeRow, NativeRows, Sampler
from generation import choosing, sampling
from generation.history import History
from generation.params import SamplingParams
from tests.kernels import RUNNABLE


@pytest.fixture(scope="module", params=RUNNABLE)
def sampler(request: pytest.FixtureRequest, llama_artifact: Path) -> Sampler:
    return Sampler(ctypes.CDLL(str(llama_artifact / request.param / "engine.so")))


def native(sampler: Sampler, logits: Logits) -> NativeRow:
    return NativeRows(sampler, bytearray(logits.tobytes()), 0, 1, len(logits))[0]


def rows_of(size: int) -> list[Logits]:
    """Flat, usual and peaked logits, some of them equal."""
    random = np.random.default_rng(size)
    rows = [(random.standard_normal(size) * scale).astype(np.float32) for scale in (0.3, 2.0, 12.0)]
    return [*rows, np.round(rows[1]), np.zeros(size, np.float32)]


PARAMS = [
    SamplingParams(temperature=0.0),
    SamplingParams(),
    SamplingParams(temperature=0.7, top_p=0.9),
    SamplingParams(temperature=0.7, top_k=40, top_p=0.95),
    SamplingParams(temperature=1.3, top_k=500, top_p=0.8, min_p=0.02),
    SamplingParams(min_p=0.05),
    SamplingParams(min_p=1.0),
    SamplingParams(top_p=0.0),
    SamplingParams(top_p=0.99999, temperature=2.0),
    SamplingParams(top_k=10**6, top_p=0.5),
    SamplingParams(temperature=0.01),
    SamplingParams(repetition_penalty=1.7, top_k=50),
    SamplingParams(presence_penalty=1.5, frequency_penalty=-0.7),
    SamplingParams(temperature=0.0, logit_bias={1: 100.0, 2: -100.0}),
    SamplingParams(logit_bias={0: 3.5}, frequency_penalty=0.4, repetition_penalty=0.8, top_p=0.9),
]


@pytest.mark.parametrize("size", [3, 64, 1009, 50_257])
def test_a_seed_gives_the_tokens_of_the_reference(sampler: Sampler, size: int) -> None:
    history = History([0, 1, 1, size - 1])
    for token in (1, 2, 2, size - 1):
        history.add(token)
    for logits in rows_of(size):
        row = native(sampler, logits)
        for params in PARAMS:
            ours, reference = Random(size), Random(size)
            for _ in range(8):
                expected = choosing.choose(logits, params, history, reference)
                assert choosing.choose(row, params, history, ours) == expected, params


def test_only_what_is_allowed_and_not_barred_is_chosen(sampler: Sampler) -> None:
    logits, history = rows_of(1009)[1], History([5])
    allowed = bytearray(127)
    for token in (3, 64, 500, 1008):
        allowed[token // 8] |= 1 << token % 8
    for params in PARAMS:
        for chosen_from, barred in ((allowed, ()), (allowed, (64, 3)), (None, (int(logits.argmax()),))):
            ours, reference = Random(7), Random(7)
            for _ in range(8):
                expected = choosing.choose(logits, params, history, reference, chosen_from, barred)
                token = choosing.choose(native(sampler, logits), params, history, ours, chosen_from, barred)
                assert token == expected, params
                assert chosen_from is None or token in {3, 64, 500, 1008} - set(barred)


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_log_probabilities_are_those_of_the_reference(sampler: Sampler, count: int) -> None:
    for logits in rows_of(1009)[:3]:
        expected, expected_top = sampling.describe(logits, 17, count)
        found, found_top = choosing.describe(native(sampler, logits), 17, count)
        assert found == pytest.approx(expected, abs=1e-5)
        assert [token for token, _ in found_top] == [token for token, _ in expected_top]
        np.testing.assert_allclose([p for _, p in found_top], [p for _, p in expected_top], atol=1e-5)


def test_rows_are_sliced_and_copied_like_an_array(sampler: Sampler) -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    memory = bytearray(table.tobytes())
    rows = NativeRows(sampler, memory, 0, 4, 3)
    copy = rows[-1:].copy()
    np.testing.assert_array_equal(rows[1:3].array(), table[1:3])
    assert len(rows[4:]) == 0
    assert [row.describe(0, 1)[1][0][0] for row in rows] == [2, 2, 2, 2]
    memory[:] = bytes(len(memory))
    np.testing.assert_array_equal(copy.array(), table[-1:])
    with pytest.raises(IndexError):
        rows[4]


def test_what_is_no_number_is_seen(sampler: Sampler) -> None:
    table = np.zeros((2, 70), np.float32)
    assert NativeRows(sampler, bytearray(table.tobytes()), 0, 2, 70).are_finite
    table[1, 69] = np.nan
    assert not NativeRows(sampler, bytearray(table.tobytes()), 0, 2, 70).are_finite


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("size", [3, 64, 1009])
def test_logits_that_are_no_numbers_choose_some_token_of_the_vocabulary(
    sampler: Sampler, size: int, value: float
) -> None:
    row = native(sampler, np.full(size, value, np.float32))
    for params in PARAMS:
        token = choosing.choose(row, params, History([0]), Random(size))
        assert 0 <= token < size, params
