"""The aarch64 level of whole models, run by qemu, against this machine's own level on the same weight file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.build import build
from engines import artifact, compiled_engine
from engines.base import PAGE_TOKENS, Logits, Step, TokenIds
from tests import emulated
from tests.checkpoints import make_checkpoint
from tests.kernels import BEST

pytestmark = pytest.mark.slow

# No size is a multiple of 16, so every kernel meets its edges.
SIZES: dict[str, Any] = {"vocab_size": 330, "hidden_size": 72, "intermediate_size": 100, "head_dim": 20}
THREADS = 2
# Tokens per call: prompts and single tokens, over several tiles of 16 tokens of the cache, int4 both as it is stored
# (below 48 tokens) and widened, and enough tokens of context for threads to share out a single token's attention.
CALLS = [20, 1, 1, 1, 1, 7, 150, 2, 1, 1]
SHORT = sum(CALLS[:5])


class Models:
    """One artifact with two levels."""

    def __init__(self, architecture: str, quantize: str, directory: Path) -> None:
        emulated.require()
        (directory / "checkpoint").mkdir()
        checkpoint = make_checkpoint(directory / "checkpoint", architecture, **SIZES)
        build(checkpoint, directory / "artifact", quantize, levels=[BEST, emulated.LEVEL])
        self.artifact = artifact.read(directory / "artifact")
        self.driver = emulated.build_driver("forward", directory)

    def here(self, calls: Sequence[TokenIds]) -> Logits:
        """Logits `[tokens, V]` of this machine's level."""
        engine = compiled_engine.load(self.artifact.directory, threads=THREADS, level=BEST)
        cache = engine.new_cache()
        return np.concatenate([engine.forward([Step(ids, cache, len(ids))])[0] for ids in calls])

    def emulated(self, calls: Sequence[TokenIds]) -> Logits:
        """Logits `[tokens, V]` of the aarch64 level."""
        a = self.artifact
        page_bytes = PAGE_TOKENS * a.cache_elements * a.cache_element_bytes
        pages = -(-sum(map(len, calls)) // PAGE_TOKENS)
        words: list[object] = [a.vocab_size, pages, page_bytes, a.cache_element_bytes]
        words += [THREADS, len(a.constants)]
        for constant in a.constants:
            words += [constant.name, constant.offset, constant.size]
        for ids in calls:
            words += [len(ids), *ids]
        arguments = [a.directory / emulated.LEVEL, a.directory / artifact.WEIGHTS]
        found = emulated.run(self.driver, arguments, " ".join(map(str, words)).encode())
        return np.frombuffer(found, np.float32).reshape(-1, a.vocab_size)

    def differences(self, seed: int) -> tuple[Logits, Logits]:
        """For each token of a random text: largest difference relative to the largest logit, and correlation."""
        ids = np.random.default_rng(seed).integers(1, self.artifact.vocab_size, sum(CALLS))
        calls = np.split(ids, np.cumsum(CALLS)[:-1])
        ours, theirs = self.emulated(calls), self.here(calls)
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)]
        return np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(), np.array(correlations, np.float32)


def test_float32_logits_are_those_of_this_machine(tmp_path: Path) -> None:
    difference, _ = Models("gemma3-sliding", "none", tmp_path).differences(0)
    assert difference.max() <= 1e-5


@pytest.mark.parametrize(("architecture", "quantize"), [("llama", "int8"), ("qwen3", "int4")])
def test_quantised_logits_differ_only_where_a_rounding_falls_the_other_way(
    architecture: str, quantize: str, tmp_path: Path
) -> None:
    # Linears and the cache are equal bit for bit, norms and softmax sum in another order: the last bit of an activation
    # differs, and now and then that tips its rounding to 8 bits. From there on a random model is a little different,
    # as it is between two levels of x86-64.
    models = Models(architecture, quantize, tmp_path)
    texts = [models.differences(seed) for seed in range(8)]
    equal = [difference[:SHORT].max() <= 1e-5 for difference, _ in texts]
    assert sum(equal) >= 2, equal  # an error in a kernel or graph would leave none
    assert max(difference.max() for difference, _ in texts) <= 0.1
    assert min(correlation.min() for _, correlation in texts) >= 0.99
