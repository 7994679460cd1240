"""Text to calibrate on without a download: what the checkpoint itself writes, sampled at temperature 1 from a seed.

Sequences begin as the model knows texts to begin: with its mark for a beginning, as a chat's first user turn where
there is a template, and with random tokens for the rest (as LLM-QAT does, Liu et al. 2023, arXiv 2305.17888).
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from compiler.errors import CannotCalibrateError, first_line

SEQUENCES = 64
TOKENS = 128
"""Of each sequence, its start included; fewer where the context is shorter."""
_HELD_OUT = 8
"""Sequences, of those, that nothing is calibrated on."""
_FEWEST_TOKENS = 8
_SEED = 0
_FEWEST_DIFFERENT = 16
"""Different tokens that a text must have to say anything of what the layers are fed with."""
_MOST_OF_ONE = 0.5
"""The largest part of it that may be one and the same token."""


@dataclass(frozen=True)
class CalibrationText:
    """Token ids that a model wrote."""

    ids: Tensor
    """`[56, 128]`, to calibrate on."""
    held_out: Tensor
    """`[8, 128]`, to measure on what a calibrated model is worth."""


def write(model: PreTrainedModel, checkpoint: Path, context: int) -> CalibrationText:
    """What the model samples; the same every time on one machine. Raises CannotCalibrateError."""
    tokens = min(TOKENS, context)
    if tokens < _FEWEST_TOKENS:
        raise CannotCalibrateError(f"a context of {context} tokens holds no text to calibrate on")
    starts = _starts(checkpoint, model.config.get_text_config().vocab_size, tokens // 2)
    try:
        written = [_continued(model, start, tokens) for start in starts]
    except RuntimeError as error:  # sampling from what is not finite, or a model that transformers cannot generate with
        raise CannotCalibrateError(f"the model cannot write a text ({first_line(error)})") from error
    require_variety(torch.cat([ids[:, start.shape[1] :].flatten() for start, ids in zip(starts, written, strict=True)]))
    ids = torch.cat(written)
    mixed = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(_SEED))]
    return CalibrationText(mixed[_HELD_OUT:], mixed[:_HELD_OUT])


def require_variety(ids: Tensor) -> None:
    """Raises CannotCalibrateError for ids `[T]` that are nearly all the same."""
    counts = ids.bincount()
    if (different := int((counts > 0).sum())) < _FEWEST_DIFFERENT:
        raise CannotCalibrateError(f"the model writes no more than {different} different tokens")
    if counts.max() > _MOST_OF_ONE * ids.numel():
        raise CannotCalibrateError(f"{100 * int(counts.max()) // ids.numel()} % of what the model writes is one token")


def _starts(checkpoint: Path, vocab_size: int, most: int) -> list[Tensor]:
    """Beginnings of at most `most` tokens, `[sequences, tokens]` each: SEQUENCES in all."""
    try:
        tokenizer = cast(Any, AutoTokenizer).from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a file of the checkpoint makes transformers raise
        raise CannotCalibrateError(f"its tokenizer cannot be read ({first_line(error)})") from error
    beginnings = []
    mark = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if mark is not None:
        beginnings.append([int(mark)])
    if tokenizer.chat_template:
        asked = "\x00"
        with suppress(Exception):  # a template that wants other messages, or is broken: the other beginnings remain
            turn = tokenizer.apply_chat_template([{"role": "user", "content": asked}], tokenize=False).split(asked)[0]
            beginnings.append(tokenizer(turn, add_special_tokens=False)["input_ids"])
    beginnings = [beginning for beginning in beginnings if 0 < len(beginning) <= most]
    each = SEQUENCES // (len(beginnings) + 1)
    random = torch.randint(
        0, vocab_size, (SEQUENCES - each * len(beginnings), 1), generator=torch.Generator().manual_seed(_SEED)
    )
    return [random, *(torch.tensor([beginning]).expand(each, -1) for beginning in beginnings)]


def _continued(model: PreTrainedModel, start: Tensor, tokens: int) -> Tensor:
    """`[B, S]` -> `[B, tokens]`. An end of text is followed by whatever the model thinks follows it."""
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_length=tokens, min_length=tokens, pad_token_id=0
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        # transformers types `generate` for a protocol that its own models do not satisfy under mypy.
        written: Tensor = cast(Any, model).generate(
            start, attention_mask=torch.ones_like(start), generation_config=settings
        )
    return written[:, :tokens]
