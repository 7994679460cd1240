"""More bits for some matrices: which ones, how many of them, and that the compiled graph then reads them so."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedModel

from compiler import build, calibrate, calibration_text, export, ops, pack, sensitivity
from compiler.calibrate import weight_of
from compiler.calibration_text import CalibrationText
from compiler.errors import CannotCalibrateError
from compiler.ops import Kind
from compiler.pack import BITS, pack_stacked
from compiler.rewrite import PackedWeights, rewrite
from tests.checkpoints import make_checkpoint

DEMO = Path(__file__).parents[1] / "models" / "demo"


def some_text() -> Tensor:
    return torch.randint(0, 300, (4, 40), generator=torch.Generator().manual_seed(0))


def names(model: PreTrainedModel, linears: set[nn.Module]) -> set[str]:
    return {name for name, module in model.named_modules() if module in linears}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3-sliding"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_share_is_kept_and_linears_that_read_the_same_go_together(
    architecture: str, share: float, tmp_path: Path
) -> None:
    model, told = export.load(make_checkpoint(tmp_path / architecture, architecture)), list[int]()
    chosen = sensitivity.most_sensitive(model, some_text(), 4, share, told.append)
    every = calibrate.weights_of(model)
    assert share - 0.25 < sum(weight_of(linear).numel() for linear in chosen) / every <= share
    for group in calibrate.groups_of_linears(model, some_text()):
        assert len(chosen.intersection(group)) in (0, len(group))
    assert sum(told) == every * sensitivity.passes(some_text())


def test_what_hardly_changes_the_models_output_comes_last(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    with torch.no_grad():
        model.get_parameter("model.layers.0.self_attn.o_proj.weight").mul_(1e-3)
        model.get_parameter("model.layers.1.mlp.up_proj.weight").mul_(1e-3)
    chosen = names(model, sensitivity.most_sensitive(model, some_text(), 4, 0.4))
    # What reads the small matrices' outputs, and the matrices that feed what they make small.
    idle = {f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"} | {"model.layers.1.mlp.down_proj"}
    assert chosen
    assert not chosen & idle


@pytest.mark.slow
def test_the_costs_are_nearly_those_that_rounding_one_after_the_other_has() -> None:
    reference, model = export.load(DEMO), export.load(DEMO)
    text = calibration_text.write(reference, DEMO, 512)
    chosen = sensitivity.most_sensitive(model, text.ids[: sensitivity.SEQUENCES], 4, 0.3)
    inside, outside = list[float](), list[float]()
    with torch.no_grad():
        p = torch.log_softmax(reference(input_ids=text.held_out).logits, -1)
        for group in calibrate.groups_of_linears(model, text.ids):
            before = [weight_of(linear).clone() for linear in group]
            for linear in group:
                weight_of(linear).copy_(pack.quantise(weight_of(linear), 4).values())
            q = torch.log_softmax(model(input_ids=text.held_out).logits, -1)
            per_weight = float((p.exp() * (p - q)).sum()) / sum(weight.numel() for weight in before)
            (inside if group[0] in chosen else outside).append(per_weight)
            for linear, weight in zip(group, before, strict=True):
                weight_of(linear).copy_(weight)
    assert sum(inside) / len(inside) > 2 * sum(outside) / len(outside)


def test_gradients_that_are_not_finite_are_of_no_use(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(torch.inf)
    with pytest.raises(CannotCalibrateError, match="gradients are not finite"):
        sensitivity.most_sensitive(model, some_text(), 4)


def test_without_gradients_every_layer_is_calibrated_in_the_same_bits(
    llama_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = export.load(llama_directory)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(torch.inf)
    text = CalibrationText(some_text(), some_text())
    ready = build.quantised_layers(model, text, Kind.INT4, Kind.INT6, tqdm(disable=True))
    assert {matrix.bits for matrix in ready.values()} == {4}
    assert (
        "No matrix of the layers gets more bits than the others: its gradients are not finite."
        in capsys.readouterr().out
    )


def test_a_linear_is_read_in_the_bits_that_its_weights_were_quantised_to(llama_directory: Path) -> None:
    model = export.load(llama_directory)
    finer = {model.get_submodule("model.layers.1.mlp.down_proj")}
    ready = calibrate.calibrate(model, some_text(), lambda linear: BITS[Kind.INT6 if linear in finer else Kind.INT4])
    weights = PackedWeights(lambda matrices, kind: pack_stacked(matrices, kind, ready))
    rewritten = export.again(
        export.export(model, element_bytes=2).program, lambda module: rewrite(module, weights, Kind.INT4, Kind.INT6)
    )
    kinds = [node.args[4] for node in rewritten.graph.nodes if node.target is ops.packed_linear]
    layers = len(calibrate.groups_of_linears(export.load(llama_directory), some_text()))
    assert kinds == [*[Kind.INT4] * (layers - 1), Kind.INT6, Kind.INT6]  # the last of the last layer, and the head
