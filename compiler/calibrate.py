"""A model's layers quantised one after the other, each on what the layers before it, already quantised, feed it with.

Two streams of hidden states go through them side by side: what the model computes in float32, and what it computes
with the layers that are quantised already. What the matrices of a layer are fed with is in memory for one at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from compiler import gptq
from compiler.errors import CannotCalibrateError
from compiler.pack import Quantised, padded

_LINEAR = nn.Linear | Conv1D
_AT_A_TIME = 8  # sequences that go through a layer together


@torch.no_grad()
def calibrate(
    model: PreTrainedModel,
    ids: Tensor,
    bits: Callable[[nn.Module], int],
    done: Callable[[int], object] = lambda weights: None,
) -> dict[int, Quantised]:
    """Quantise the linears of the model's layers on the text `ids` `[B, S]`, each to its `bits`; the model then has the
    values they stand for. Returns them by the address of their weights. `done` is told of weights that are ready.
    Raises CannotCalibrateError where the layers cannot be run one by one or what they compute is not finite.
    """
    layers = _layers(model)
    exact, others = _inputs(model, layers, ids)
    actual = exact
    found: dict[int, Quantised] = {}
    for layer, (arguments, keywords) in zip(layers, others, strict=True):

        def run(chunk: Tensor, layer: nn.Module = layer, a: Any = arguments, k: Any = keywords) -> Tensor:
            output = layer(chunk, *a, **k)
            return output if isinstance(output, Tensor) else output[0]

        with _inputs_of_linears(layer) as groups:
            exact_after = [run(chunk) for chunk in exact]
        for modules, exactly in groups:
            fed = [x.flatten(0, -2) for x in _fed(modules[0], run, actual)]
            u, differences = _statistics(torch.cat(fed), torch.cat(exactly))
            for module in modules:
                weight = weight_of(module)
                target = gptq.corrected(padded(weight), u, differences)
                matrix = gptq.quantise(target, u, bits(module), done)
                weight.copy_(matrix.values()[:, : weight.shape[1]])
                found[weight.data_ptr()] = matrix
        exact, actual = exact_after, [run(chunk) for chunk in actual]
    return found


def weight_of(module: nn.Module) -> Tensor:
    """Of a linear, `[N, K]`: what is written into it is written into the model."""
    weight = module.get_parameter("weight").detach()
    return weight.t() if isinstance(module, Conv1D) else weight


def weights_of(model: PreTrainedModel) -> int:
    """How many weights `calibrate` quantises."""
    return sum(module.weight.numel() for module in _layers(model).modules() if isinstance(module, _LINEAR))


def groups_of_linears(model: PreTrainedModel, ids: Tensor) -> list[list[nn.Module]]:
    """The linears that `calibrate` quantises; those that read the same tensor together. `ids` `[B, S]` is any text."""
    with _inputs_of_linears(_layers(model)) as groups, torch.no_grad():
        model(input_ids=ids[:1, :1], use_cache=False)
    return [linears for linears, _ in groups]


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    count = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(lists) != 1:
        raise CannotCalibrateError(f"{len(lists)} lists of modules might be its {count} layers")
    return lists[0]


class _InputKnown(Exception):  # noqa: N818 - ends a forward pass, no error
    """What a module is fed with."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[None]:
    """Calls of the module raise _InputKnown with its first argument."""

    def stop(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        raise _InputKnown(arguments[0] if arguments else keywords["hidden_states"])

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _fed(module: nn.Module, run: Callable[[Tensor], object], chunks: Sequence[Tensor]) -> list[Tensor]:
    """What the module is fed with when each chunk is `run`."""
    found = []
    with _stopping_at(module):
        for chunk in chunks:
            try:
                run(chunk)
            except _InputKnown as known:
                found.append(known.hidden)
    return found


def _inputs(
    model: PreTrainedModel, layers: nn.ModuleList, ids: Tensor
) -> tuple[list[Tensor], list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What the first layer reads, in chunks of sequences, and what each layer is called with besides."""
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def note(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        others.append((arguments[1:], {k: v for k, v in keywords.items() if k != "hidden_states"}))

    def run(chunk: Tensor) -> None:
        model(input_ids=chunk, use_cache=False, logits_to_keep=1)

    # Sequences are of one length, so that masks and positions are the same for every chunk.
    chunks = [ids[begin : begin + _AT_A_TIME] for begin in range(0, len(ids), _AT_A_TIME)]
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        run(chunks[0][:1])
    finally:
        for hook in hooks:
            hook.remove()
    return _fed(layers[0], run, chunks), others


@contextmanager
def _inputs_of_linears(layer: nn.Module) -> Iterator[list[tuple[list[nn.Module], list[Tensor]]]]:
    """The linears of a layer that read the same tensor, in the order in which they are called, and what they are fed
    with meanwhile, `[tokens, K]` for each call.
    """
    groups: list[tuple[list[nn.Module], list[Tensor]]] = []
    group_of: dict[nn.Module, int] = {}
    group_fed: dict[int, tuple[Tensor, int]] = {}
    """By the id of a tensor, which lives on here: so no later one has it."""

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        if module not in group_of:
            if id(x) not in group_fed:
                group_fed[id(x)] = x, len(groups)
                groups.append(([], []))
            group_of[module] = group_fed[id(x)][1]
            groups[group_of[module]][0].append(module)
        modules, inputs = groups[group_of[module]]
        if modules[0] is module:
            inputs.append(x.flatten(0, -2))

    hooks = [m.register_forward_pre_hook(note) for m in layer.modules() if isinstance(m, _LINEAR)]
    try:
        yield groups
    finally:
        for hook in hooks:
            hook.remove()


def _statistics(fed: Tensor, exactly: Tensor) -> tuple[Tensor, Tensor]:
    """From inputs `[T, K]`, and what they are in float32, what gptq needs: U and the differences, `[K, K]`."""
    x, difference = padded(fed), padded(exactly - fed)
    hessian = x.t() @ x
    if not (torch.isfinite(hessian).all() and hessian.diagonal().sum() > 0):
        raise CannotCalibrateError("what its layers are fed with is not finite, or all zeros")
    return gptq.propagation(hessian), difference.t() @ x
