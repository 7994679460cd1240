"""What became of a batch, counted from its results."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.answers import tokens_of
from api.batch_lines import is_failure


@dataclass(slots=True)
class Tally:
    """What became of the lines."""

    done_before: int = 0
    failed_before: int = 0
    """Of those."""
    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Lines with an error in their place, by its code or status."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def add(self, result: Mapping[str, Any]) -> None:
        """Count a result."""
        response, error = result["response"], result["error"]
        if response is not None and response["status_code"] == 200:
            read, made = tokens_of(response["body"])
            self.prompt_tokens += read
            self.completion_tokens += made
        if not is_failure(result):
            self.answered += 1
        elif error is not None:
            self.failures[error["code"]] += 1
        else:
            self.failures[str(response["status_code"])] += 1

    def failed(self) -> str:
        """How many failed, and of what."""
        kinds = ", ".join(f"{count:,} {code}" for code, count in self.failures.most_common())
        return f"{self.failures.total():,} failed" + (f" ({kinds})" if kinds else "")

    def summary(self) -> str:
        """One line for a person."""
        before = f", {self.done_before:,} done before" if self.done_before else ""
        if self.failed_before:
            before += f" (of them {self.failed_before:,} failed)"
        rate = self.completion_tokens / self.seconds if self.seconds else 0.0
        return (
            f"{self.answered:,} answered, {self.failed()}{before}: {self.prompt_tokens:,} + "
            f"{self.completion_tokens:,} tokens in {self.seconds:,.1f} s, {rate:,.0f} tokens/s"
        )
