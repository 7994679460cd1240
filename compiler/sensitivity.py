"""Which matrices of a model's layers earn more bits: those whose rounding would change most of what the model says.

An error E of a matrix W, which reads x and passes on W x, takes what the model predicts away from itself by
1/2 mean(E[i, j]^2) mean(g[i]^2) mean(x[j]^2), summed over all i and j (Kullback-Leibler, nats a token), where g is the
gradient with respect to W x of the log-probability of a token that the model itself draws: to second order, with the
diagonal of the Fisher information, factored as in K-FAC (Martens and Grosse 2015, arXiv 1503.05671). The calibration
text is such a draw, so one pass forwards and one backwards measure every matrix at once, and none has to be changed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compiler.calibrate import groups_of_linears, weight_of
from compiler.errors import CannotCalibrateError, first_line
from compiler.pack import BLOCK, padded

SEQUENCES = 16
"""Of the calibration text, that are read for it. All 56 name nearly the same matrices."""
SHARE = 0.15
"""The part of the layers' weights that may get more bits."""
_AT_A_TIME = 2  # sequences, so that what the backward pass needs stays small


def most_sensitive(
    model: PreTrainedModel, ids: Tensor, bits: int, share: float = SHARE, done: Callable[[int], object] = lambda n: None
) -> set[nn.Module]:
    """The linears whose rounding to `bits` costs most for each of their weights, up to a `share` of all weights.

    Linears that read the same tensor go together. `ids` `[B, S]` is text that the model wrote. `done` is told of
    weights that were measured, each of them `passes(ids)` times. Raises CannotCalibrateError.
    """
    groups = groups_of_linears(model, ids)
    linears = [linear for group in groups for linear in group]
    inputs, gradients = _mean_squares(model, linears, ids, done)
    costs = [sum(_cost(weight_of(linear), inputs[linear], gradients[linear], bits) for linear in g) for g in groups]
    if not all(0 <= cost < torch.inf for cost in costs):
        raise CannotCalibrateError("its gradients are not finite")
    sizes = [sum(weight_of(linear).numel() for linear in group) for group in groups]
    left, chosen = share * sum(sizes), set[nn.Module]()
    for i in sorted(range(len(groups)), key=lambda i: -costs[i] / sizes[i]):
        if sizes[i] <= left:
            chosen.update(groups[i])
            left -= sizes[i]
    return chosen


def passes(ids: Tensor) -> int:
    """How often `most_sensitive` measures every weight."""
    return -(-len(ids) // _AT_A_TIME)


def _mean_squares(
    model: PreTrainedModel, linears: list[nn.Module], ids: Tensor, done: Callable[[int], object]
) -> tuple[dict[nn.Module, Tensor], dict[nn.Module, Tensor]]:
    """Over the tokens of `ids`: of each linear's inputs `[K]`, and of the gradients of its outputs `[N]`."""
    inputs, gradients = ({linear: torch.zeros(()) for linear in linears} for _ in range(2))

    def watch(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        def note(gradient: Tensor) -> None:
            gradients[module] = gradients[module] + gradient.flatten(0, -2).square().sum(0) / ids.numel()
            done(weight_of(module).numel())

        inputs[module] = inputs[module] + arguments[0].detach().flatten(0, -2).square().sum(0) / ids.numel()
        output.register_hook(note)  # type: ignore[no-untyped-call]

    def begin(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        output.requires_grad_()

    model.requires_grad_(False)  # of the weights themselves no gradient is needed, only of what passes through
    hooks = [linear.register_forward_hook(watch) for linear in linears]
    hooks.append(model.get_input_embeddings().register_forward_hook(begin))
    try:
        for some in torch.split(ids, _AT_A_TIME):
            logits = model(input_ids=some, use_cache=False).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="sum")
            torch.autograd.backward(loss)
    except RuntimeError as error:
        raise CannotCalibrateError(f"it has no gradients ({first_line(error)})") from error
    finally:
        for hook in hooks:
            hook.remove()
    return inputs, gradients


def _cost(weight: Tensor, inputs: Tensor, gradients: Tensor, bits: int) -> float:
    """Nats a token that rounding `[N, K]` to nearest costs, the largest magnitude of 32 inputs having the lowest code;
    from the mean squares of its inputs `[K]` and of the gradients of its outputs `[N]`.
    """
    groups, half = padded(weight).view(len(weight), -1, BLOCK), 2 ** (bits - 1)
    scales = groups.gather(2, groups.abs().argmax(2, keepdim=True)) / -half
    scales = torch.where(scales == 0, 1.0, scales)
    errors = (groups / scales).round_().clamp_(-half, half - 1).mul_(scales).sub_(groups)
    return 0.5 * float(gradients @ (errors.flatten(1)[:, : weight.shape[1]].square() @ inputs))
