"""A checkpoint of a known shape that gives the answers of the tasks, for engines that cannot be told what to say.

Its head alone decides: after each token of an answer comes the next one. What the layers add to the residual stream is
too small to change that, and is computed in full by every engine.
"""

import hashlib
import itertools
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import MADE, SHAPES, make
from benchmarks.drafts.texts import Task, cut

PRINTABLE = 94
"""Printable characters of ASCII: the first of the bytes in the tokenizer's order, and those of its pairs of bytes."""
QUIET = 1e-4
"""What is left of each layer's outputs."""


def written(tasks: Mapping[str, Task]) -> dict[str, tuple[list[int], list[int]]]:
    """Prompt and answer of each task as token ids. No id comes twice in an answer, so one token tells what follows it.

    A prompt has the same ids where the answer copies from it, and ids of its own elsewhere.
    """
    fresh = (257 + 256 * left + right for left in range(PRINTABLE) for right in range(PRINTABLE))
    texts = {}
    for name, task in tasks.items():
        prompt, answer = cut(task.prompt), cut(task.answer)
        given, said = ([next(fresh) for _ in pieces] for pieces in (prompt, answer))
        for block in SequenceMatcher(None, prompt, answer, autojunk=False).get_matching_blocks():
            given[block.a : block.a + block.size] = said[block.b : block.b + block.size]
        given[-1] = next(fresh)  # the answer begins behind it
        texts[name] = (given, said)
    return texts


def followers(texts: Mapping[str, tuple[list[int], list[int]]]) -> dict[int, int]:
    """What the model says after each token of an answer, and after the last one of a prompt."""
    return {
        token: following
        for prompt, answer in texts.values()
        for token, following in itertools.pairwise([prompt[-1], *answer])
    }


def copying_checkpoint(shape: str, texts: Mapping[str, tuple[list[int], list[int]]]) -> Path:
    """The directory of the checkpoint, made unless it has been before. `shape` is a key of SHAPES."""
    follows = followers(texts)
    digest = hashlib.sha256(f"{QUIET} {sorted(follows.items())}".encode()).hexdigest()[:8]
    directory = MADE / f"{shape}-copying-{digest}"

    def teach(model: Any) -> None:
        import torch

        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.mul_(QUIET)
                layer.mlp.down_proj.weight.mul_(QUIET)
            head, tokens = model.lm_head.weight, model.model.embed_tokens.weight[list(follows)]
            # As large as the other rows, whose products with a token are random: 1 to sqrt(hidden size).
            head[list(follows.values())] = tokens * (head.std() / tokens.std())

    if not (directory / "tokenizer_config.json").is_file():
        make({**SHAPES[shape], "tie_word_embeddings": False}, directory, teach)
    return directory
