"""What to generate after a prompt."""

from msgspec import Struct, field

from engines.base import TokenIds
from generation.constraint import CompiledGrammar
from generation.sampling import SamplingParams


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
