"""Every architecture the README promises, compiled from a tiny random checkpoint and held to transformers' logits."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BitNetConfig,
    BloomConfig,
    Gemma2Config,
    GraniteConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    SmolLM3Config,
)

from compiler import codegen
from compiler.build import build
from compiler.errors import CompileError, UnsupportedModelError
from engines import compiled_engine, cpu_levels
from engines.base import Step
from engines.errors import LoadError
from tests.checkpoints import CONFIGS, CONTEXT, SIZES, VOCAB, make_checkpoint

_NO_HEAD_DIM: dict[str, Any] = {**{k: v for k, v in SIZES.items() if k != "head_dim"}, "pad_token_id": 0}
MORE: dict[str, PretrainedConfig] = {
    "bitnet": BitNetConfig(
        **_NO_HEAD_DIM
    ),  # whose norm reads what nothing else does: each thread has memory of its own
    "gemma2-softcap": Gemma2Config(**SIZES, sliding_window=24, query_pre_attn_scalar=16),
    "granite": GraniteConfig(**_NO_HEAD_DIM),
    "olmo2": Olmo2Config(**_NO_HEAD_DIM),
    "phi3": Phi3Config(**_NO_HEAD_DIM),
    "qwen2": Qwen2Config(**_NO_HEAD_DIM),
    "smollm3": SmolLM3Config(**_NO_HEAD_DIM),
}
BEST = next(level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags())


@pytest.fixture
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tests.checkpoints.CONFIGS", {**CONFIGS, **MORE})
    directory = tmp_path / request.param
    directory.mkdir()
    return make_checkpoint(directory, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", sorted({**CONFIGS, **MORE}), indirect=True)
def test_logits_equal_transformers_up_to_the_full_context(checkpoint: Path, tmp_path: Path) -> None:
    build(checkpoint, tmp_path / "artifact", "none", levels=[BEST])
    engine = compiled_engine.load(tmp_path / "artifact", threads=2)
    oracle: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = np.random.default_rng(0).integers(1, VOCAB, CONTEXT)
    with torch.inference_mode():
        expected = oracle.eval()(torch.from_numpy(ids)[None]).logits[0].numpy()
    cache = engine.new_cache()
    cuts = [0, 5, 6, 7, 300, 303, CONTEXT - 1, CONTEXT]
    found = [engine.forward([Step(ids[a:b], cache, b - a)])[0] for a, b in pairwise(cuts)]
    assert np.abs(np.concatenate(found) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_architecture_that_cannot_be_compiled_is_refused_with_the_reason(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4)  # ALiBi, not plain attention
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")  # type: ignore[no-untyped-call]
    with pytest.raises(UnsupportedModelError, match="serve this checkpoint with the transformers engine instead"):
        build(tmp_path / "bloom", tmp_path / "artifact", "none")
    assert not (tmp_path / "artifact").exists()


@pytest.mark.filterwarnings("ignore")  # torch's about its own internals
def test_a_graph_that_sums_over_the_tokens_of_a_pass_is_refused(tmp_path: Path) -> None:
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.sum()

    tokens = torch.export.Dim("tokens", min=2, max=512)
    program = torch.export.export(Sum(), (torch.ones(7, 64),), dynamic_shapes=({0: tokens},))
    with pytest.raises(UnsupportedModelError, match="a sum over all tokens of a pass"):
        codegen.generate(program, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_memory_of_a_thread_s_own_stays_its_own(tmp_path: Path) -> None:
    class Norm(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(x[:, :128]).square() * x[:, 128:]
            return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)

    tokens = torch.export.Dim("tokens", min=2, max=512)
    program = torch.export.export(Norm(), (torch.ones(7, 256),), dynamic_shapes=({0: tokens},))
    text = codegen.generate(program, tmp_path).path.read_text()
    assert "buf_local_buffer" in text, "or this is no such graph any more"
    assert not re.search(r"\.get\(\);\s*#pragma omp", text), "threads share what is made before their loop"


def test_code_whose_threads_would_share_their_memory_is_refused() -> None:
    memory = "std::unique_ptr<float []> a = std::make_unique<float []>(8L);\nfloat* b = a.get();\n"
    with pytest.raises(UnsupportedModelError, match="threads would share their memory"):
        codegen._loops_apart(f"{memory}#pragma omp for\nwhile (more())\n{{\nb[0] = 1;\n}}\n")


def test_a_model_that_counts_positions_by_itself_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCAB,
        max_position_embeddings=64,
        d_model=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
    )
    config.num_hidden_layers = 1
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bart")  # type: ignore[no-untyped-call]
    with pytest.raises(UnsupportedModelError, match="BartForCausalLM does not read the positions that it is given"):
        build(tmp_path / "bart", tmp_path / "artifact", "int8")


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"config.json is missing"):
        build(tmp_path, tmp_path / "artifact", "none")


def test_a_context_longer_than_the_model_was_made_for_is_refused(llama_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=f"between 1 and the checkpoint's {CONTEXT}"):
        build(llama_directory, tmp_path / "artifact", "none", context_length=CONTEXT + 1)
