"""The floor under decoding: the bytes that are counted, and a prompt's part of the arithmetic."""

import pytest

pytest.importorskip("matplotlib")

from benchmarks.roofline.command import prefills


def test_the_floor_counts_the_bytes_that_the_compiler_packs() -> None:
    import torch

    from benchmarks.roofline.measure import BYTES
    from compiler.build import DTYPES, QUANTIZATIONS
    from compiler.ops import Kind
    from compiler.pack import pack
    from compiler.sensitivity import SHARE

    weight = torch.zeros(64, 3200)
    for dtype, kinds in QUANTIZATIONS.items():
        linear, head = (pack(weight, kind).nbytes / weight.numel() for kind in kinds[:2])
        if kinds[0] == Kind.INT4:
            linear += SHARE * (head - linear)
        assert (linear, head) == pytest.approx(BYTES[DTYPES[dtype]], rel=0.01)


def test_a_prompts_part_of_the_arithmetic_counts_the_head_once_and_int4_beside_int8() -> None:
    models = {"four": {"model": "m-int4", "dtype": "int4"}, "other": {"model": "elsewhere", "dtype": "int8"}}
    samples = [
        {"variant": name, "prompt_tokens": 100, "output_tokens": 2, "prompts": 1, "prefill_s": seconds}
        for name in models
        for seconds in (1.0, 2.0, 3.0)
    ]
    floors = {"m": {"weights_per_token": 50, "head_weights": 10, "floor_s": {}}}
    (prompt,) = prefills({"settings": {"models": models}, "samples": samples}, floors, {"int8": 8020.0})
    assert prompt["prefill_s"] == 2.0
    assert prompt["operations_per_s"] == 2 * (40 * 100 + 10) / 2
    assert prompt["operations_per_s"] / prompt["best_operations_per_s"] == 0.5
