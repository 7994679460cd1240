"""What to generate after a prompt."""

from collections.abc import Mapping

from msgspec import Struct, field

from engines.base import TokenIds
from generation.constraint import CompiledGrammar

GREEDY_BELOW = 1e-5
"""A temperature this small leaves the likeliest token only, and dividing by it can overflow."""


class SamplingParams(Struct, frozen=True):
    """How to choose a token. The defaults leave the model's distribution as it is."""

    temperature: float = 1.0
    """0 is greedy: the likeliest token, the lowest id on a tie."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """None draws a fresh seed from the operating system, so restored snapshots never sample alike."""


class GenerationParams(Struct, frozen=True):
    """What to generate after a prompt."""

    max_tokens: int
    min_tokens: int = 0
    """Neither end-of-sequence tokens nor stop strings end the text before this many tokens; a complete one ends."""
    stop: tuple[str, ...] = ()
    eos_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    """None for none, else how many of the likeliest alternatives to report beside each token."""
    prompt_logprobs: bool = False
    """Report the prompt's tokens as well, before the completion's."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    grammar: CompiledGrammar | None = None
    """What the text must follow. It ends where that is complete, and at a stop string only where it may end."""
    most_drafted: int = 0
    """Most tokens of a draft, which make the text no other, only sooner there; 0 drafts nothing."""
    prediction: TokenIds | None = None
    """`[P]`, what the caller expects the text to be, for drafts."""
    shown: frozenset[int] = frozenset()
    """Special tokens that the text has by name."""
