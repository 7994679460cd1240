"""Four bits by what the layers are fed with: the error is smaller, the text is the same every time, and one that is of
no use is recognised."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PhiConfig, PhiForCausalLM

from compiler import calibrate, calibration_text, export, gptq, pack
from compiler.errors import CannotCalibrateError
from compiler.ops import Kind
from compiler.pack import BITS, padded
from tests.checkpoints import CONTEXT, make_checkpoint
from tests.test_compiled_kernels import random, unpacked

DEMO = Path(__file__).parents[1] / "models" / "demo"


def correlated(tokens: int, k: int) -> Tensor:
    """Inputs `[tokens, k]` as layers have them: few directions carry most of what there is."""
    return torch.from_numpy(random(tokens, k // 4) @ random(k // 4, k, seed=1) + 0.1 * random(tokens, k, seed=2))


@pytest.mark.parametrize("bits", [4, 6])
def test_the_error_of_a_layers_output_is_half_of_what_rounding_leaves(bits: int) -> None:
    weight, x = torch.from_numpy(random(48, 96)), correlated(512, 96)
    rounded = pack.quantise(weight, bits).values()
    calibrated = gptq.quantise(weight, gptq.propagation(x.t() @ x), bits).values()
    plain, ours = (float(((x @ (w - weight).t()) ** 2).mean()) for w in (rounded, calibrated))
    assert ours < 0.5 * plain


def test_the_error_propagates_as_in_the_plain_algorithm() -> None:
    """GPTQ written down as in its paper, a column at a time on the inverse Hessian, with the scales that we chose."""
    weight, x = random(5, 64).astype(np.float64), correlated(256, 64).double().numpy()
    hessian = x.T @ x
    damping = gptq.DAMPING * hessian.diagonal().mean() * np.eye(64)
    found = gptq.quantise(torch.from_numpy(weight).float(), gptq.propagation(torch.from_numpy(hessian).float()), 4)
    scales = (found.units[:, None] * found.scales).repeat_interleave(32, 1).double().numpy()
    inverse, left, codes = np.linalg.inv(hessian + damping), weight.copy(), []
    for i in range(64):
        codes.append(np.clip(np.round(left[:, i] / scales[:, i]), -8, 7))
        error = (left[:, i] - codes[-1] * scales[:, i]) / inverse[i, i]
        left[:, i:] -= error[:, None] * inverse[i, i:]
        inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    same = np.stack(codes, 1) == found.codes.double().numpy() - 8
    assert same.mean() > 0.99  # the rest lie half-way between two codes, but for the last digits


@pytest.mark.parametrize("kind", [Kind.INT4, Kind.INT6])
def test_what_was_quantised_before_is_packed_as_it_is_in_the_bits_that_it_has(kind: Kind) -> None:
    first, second = (torch.from_numpy(random(n, 70, seed=n)) for n in (19, 16))
    ready = {m.data_ptr(): pack.quantise(padded(m) * 2, BITS[kind]) for m in (first, second)}
    packed, found = pack.pack_stacked([first, second], Kind.INT4, ready)
    assert found == kind
    np.testing.assert_allclose(
        unpacked(packed.numpy(), 35, 70, kind),
        torch.cat([ready[m.data_ptr()].values() for m in (first, second)])[:, :70].numpy(),
        rtol=1e-6,
    )


def test_matrices_that_were_not_all_quantised_before_are_packed_to_the_kind_asked_for() -> None:
    first, second = (torch.from_numpy(random(n, 70, seed=n)) for n in (19, 16))
    four, six = (pack.quantise(padded(m) * 2, bits) for m, bits in ((first, 4), (second, 6)))
    plain = pack.pack(torch.cat([first, second]), Kind.INT4)
    for ready in ({first.data_ptr(): four}, {first.data_ptr(): four, second.data_ptr(): six}):
        packed, found = pack.pack_stacked([first, second], Kind.INT4, ready)
        assert found == Kind.INT4
        assert torch.equal(packed, plain)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3-sliding"])
def test_every_layer_is_quantised_to_what_the_model_then_computes_with(architecture: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / architecture, architecture)
    model = export.load(checkpoint)
    ids = torch.randint(0, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    told: list[int] = []
    found = calibrate.calibrate(model, ids, lambda linear: 4, told.append)
    weights = {p.data_ptr(): p for p in model.parameters()}
    assert sum(told) == calibrate.weights_of(model) == sum(weights[address].numel() for address in found)
    for address, matrix in found.items():
        weight = weights[address].t() if architecture == "gpt2" else weights[address]
        assert torch.equal(weight, matrix.values()[:, : weight.shape[1]])
    before = export.load(checkpoint)
    difference = (model(input_ids=ids).logits - before(input_ids=ids).logits).abs().mean()
    assert 0 < difference < before(input_ids=ids).logits.abs().mean()


def test_the_same_text_gives_the_same_bytes(llama_directory: Path) -> None:
    ids = torch.randint(0, 300, (4, 40), generator=torch.Generator().manual_seed(0))
    first, second = (
        list(calibrate.calibrate(export.load(llama_directory), ids, lambda linear: 4).values()) for _ in range(2)
    )
    assert torch.equal(pack.lay_out(first[:1]), pack.lay_out(second[:1]))
    assert all(
        torch.equal(a.codes, b.codes) and torch.equal(a.scales, b.scales) for a, b in zip(first, second, strict=True)
    )


def distance(model: torch.nn.Module, reference: torch.nn.Module, ids: Tensor) -> float:
    """Kullback-Leibler, nats a token."""
    with torch.no_grad():
        q, p = (torch.log_softmax(m(input_ids=ids).logits, -1) for m in (model, reference))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.slow
def test_calibration_takes_a_third_of_the_distance_of_a_trained_model_at_least() -> None:
    reference, calibrated, rounded = (export.load(DEMO) for _ in range(3))
    text = calibration_text.write(reference, DEMO, 512)
    calibrate.calibrate(calibrated, text.ids, lambda linear: 4)
    with torch.no_grad():
        for layer in rounded.get_submodule("model.layers").modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.copy_(pack.quantise(layer.weight.detach(), 4).values())
    # Half was measured; on another CPU the model writes another text.
    assert distance(calibrated, reference, text.held_out) < 2 / 3 * distance(rounded, reference, text.held_out)


def test_a_model_writes_the_same_text_every_time_and_as_much_as_its_context_holds(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    text, again = (calibration_text.write(model, llama_directory, 32) for _ in range(2))
    assert torch.equal(text.ids, again.ids)
    assert (text.ids.shape, text.held_out.shape) == ((56, 32), (8, 32))
    assert calibration_text.write(model, llama_directory, CONTEXT).ids.shape == (56, 128)


def test_a_chat_model_also_writes_what_users_ask() -> None:
    text = calibration_text.write(export.load(DEMO), DEMO, 16)
    opening = Tokenizer.from_file(str(DEMO / "tokenizer.json")).encode("<|im_start|>user\n").ids
    assert sum(row[: len(opening)].tolist() == opening for row in text.ids) >= 10


def test_a_template_that_refuses_a_lone_question_leaves_the_other_beginnings(
    llama_directory: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(llama_directory, tmp_path / "refusing"))
    (checkpoint / "chat_template.jinja").write_text("{{ raise_exception('a system message is needed') }}")
    text = calibration_text.write(export.load(checkpoint), checkpoint, 32)
    assert len(text.ids) + len(text.held_out) == calibration_text.SEQUENCES


def test_a_checkpoint_without_a_tokenizer_has_no_text_to_calibrate_on(llama_directory: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(llama_directory, tmp_path / "mute"))
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CannotCalibrateError, match="its tokenizer cannot be read"):
        calibration_text.write(export.load(checkpoint), checkpoint, 32)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (torch.zeros(800, dtype=torch.int64), "no more than 1 different tokens"),
        (torch.arange(15).repeat(100), "no more than 15 different tokens"),
        (torch.cat([torch.full((600,), 7), torch.arange(400)]), "60 % of what the model writes is one token"),
    ],
)
def test_a_text_without_variety_is_of_no_use(ids: Tensor, reason: str) -> None:
    with pytest.raises(CannotCalibrateError, match=reason):
        calibration_text.require_variety(ids)


def test_a_model_whose_logits_are_not_finite_writes_nothing(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(torch.nan)
    with pytest.raises(CannotCalibrateError, match="cannot write a text"):
        calibration_text.write(model, llama_directory, 32)


def test_activations_that_are_not_finite_are_of_no_use(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    with torch.no_grad():
        model.get_parameter("model.layers.1.input_layernorm.weight").fill_(torch.inf)
    with pytest.raises(CannotCalibrateError, match="not finite"):
        calibrate.calibrate(model, torch.arange(40).view(1, 40), lambda linear: 4)


def test_linears_that_read_the_same_tensor_go_together_whenever_they_are_called(tmp_path: Path) -> None:
    """Phi's first linear of the feed-forward part reads what attention reads, and is called after its output."""
    config = PhiConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT,
    )  # fmt: skip
    torch.manual_seed(0)
    model = PhiForCausalLM(config)
    names = {module: name.removeprefix("model.layers.0.") for name, module in model.named_modules()}
    groups = calibrate.groups_of_linears(model, torch.arange(40).view(2, 20))
    found = [[names[linear] for linear in group] for group in groups if "layers.1" not in names[group[0]]]
    assert found == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"],
        ["self_attn.dense"],
        ["mlp.fc2"],
    ]
