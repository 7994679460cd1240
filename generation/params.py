"""What to generate after a prompt."""

from dataclasses import dataclass, field

from generation.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """What to generate after a prompt."""

    max_tokens: int
    min_tokens: int = 0
    """Neither end-of-sequence tokens nor stop strings end the text before this many tokens."""
    stop: tuple[str, ...] = ()
    eos_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    """None for none, else how many of the likeliest alternatives to report beside each token."""
    prompt_logprobs: bool = False
    """Report the prompt's tokens as well, before the completion's."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
