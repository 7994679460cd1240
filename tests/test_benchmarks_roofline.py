"""The floor under decoding: the bytes that are counted, and a prompt's part of the arithmetic."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
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


@pytest.mark.parametrize(
    ("kind", "shape", "layers"),
    [
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512}, 2 * (12 * 64 * 64 + 13 * 64) + 128),
        ("gemma", {"hidden_size": 64, "head_dim": 32, "intermediate_size": 128}, 2 * (10 * 64 * 64 + 128) + 64),
        ("llama", {"hidden_size": 64, "intermediate_size": 128}, 2 * (10 * 64 * 64 + 128) + 64),
    ],
)
def test_a_token_reads_the_layers_and_the_head_of_its_architecture(
    kind: str, shape: dict[str, int], layers: int, tmp_path: Path
) -> None:
    """The head is the embedding in GPT-2 and Gemma and is not in Llama, though config.json does not say so."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from benchmarks.roofline.measure import weights_per_token

    counts = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2} if kind != "gpt2" else {}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=96, **shape, **counts, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    written = json.loads((tmp_path / "config.json").read_text())
    written.pop("tie_word_embeddings", None)
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert weights_per_token(tmp_path) == (layers, 96 * 64)


def test_a_checkpoint_of_no_known_kind_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "tea"}')
    assert main(["roofline", "--model", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is not a model that transformers knows: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
