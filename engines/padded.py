"""Several sequences in one forward pass of a transformers model: their caches joined to a padded batch, then parted.

A row of the batch is padding, what its sequence's cache holds, its new tokens, padding: a sequence's tokens lie side by
side, in their order. The attention mask hides the padding, and positions are counted without it. Joining copies the
caches, which a GPU does in little of the time that it takes to read the weights.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from engines.base import Logits, Step


def takes_batches(model: PreTrainedModel) -> bool:
    """Whether the network takes positions and a mask, and keeps every token in layers that can be cut anywhere."""
    taken = inspect.signature(model.forward).parameters
    layers = DynamicCache(config=model.config).layers
    return {"attention_mask", "position_ids"} <= taken.keys() and all(type(layer) is DynamicLayer for layer in layers)


def alike(steps: Sequence[Step]) -> list[list[int]]:
    """The numbers of the steps that share a batch: less than half of its new tokens are padding.

    Those whose caches are empty are on their own: they have no entries to join.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for number, step in enumerate(steps):
        groups.setdefault(((len(step.ids) - 1).bit_length(), step.cache.length > 0), []).append(number)
    return list(groups.values())


def forward(
    model: PreTrainedModel, steps: Sequence[Step], entries: Sequence[DynamicCache], *, keeps: bool
) -> list[tuple[Logits, DynamicCache]]:
    """Logits `[last, V]` of each of these `alike` steps, and its cache's `entries` with its ids appended, as new ones.

    `keeps`: the model can be asked for the last logits alone.
    """
    lasts, counts = [step.last for step in steps], [len(step.ids) for step in steps]
    pasts, width = [step.cache.length for step in steps], max(counts)
    past = max(pasts)
    ids, mask = (
        torch.zeros(len(steps), width, dtype=torch.long),
        torch.zeros(len(steps), past + width, dtype=torch.long),
    )
    for row, step in enumerate(steps):
        ids[row, : counts[row]] = torch.from_numpy(np.asarray(step.ids))
        mask[row, past - pasts[row] : past + counts[row]] = 1
    positions = (mask.cumsum(1) - 1)[:, past:]
    joined = _joined(model, entries, pasts)
    most = max(width - count + last for count, last in zip(counts, lasts, strict=True))
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=joined,
        use_cache=True,
        **({"logits_to_keep": max(most, 1)} if keeps else {}),
    ).logits
    ends = [logits.shape[1] - width + count for count in counts]
    rows = [
        logits[i, end - last : end].float().cpu().numpy() for i, (end, last) in enumerate(zip(ends, lasts, strict=True))
    ]
    begins = [past - own for own in pasts]
    return list(zip(rows, _parted(model, joined, begins, [past + count for count in counts]), strict=True))


def _joined(model: PreTrainedModel, entries: Sequence[DynamicCache], pasts: Sequence[int]) -> DynamicCache:
    """The entries of caches of `pasts` tokens, one a row, each with padding before it."""
    joined, most = DynamicCache(config=model.config), max(pasts)
    rows: list[list[Any]] = [entry.layers for entry in entries]
    for number, layers in enumerate(zip(*rows, strict=True)):
        if layers[0].is_initialized:
            paddings = [(0, 0, most - past, 0) for past in pasts]
            keys = [pad(layer.keys, padding) for layer, padding in zip(layers, paddings, strict=True)]
            values = [pad(layer.values, padding) for layer, padding in zip(layers, paddings, strict=True)]
            joined.update(torch.cat(keys), torch.cat(values), number)
    return joined


def _parted(
    model: PreTrainedModel, joined: DynamicCache, begins: Sequence[int], ends: Sequence[int]
) -> Iterator[DynamicCache]:
    """A copy of each row's entries from its begin to its end."""
    layers: list[Any] = joined.layers
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        own = DynamicCache(config=model.config)
        for number, layer in enumerate(layers):
            if layer.is_initialized:
                own.update(layer.keys[row : row + 1, :, begin:end], layer.values[row : row + 1, :, begin:end], number)
        yield own
