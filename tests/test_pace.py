"""What passes are expected to cost, and how that is forgotten."""

import math
import time
from pathlib import Path

from generation.deadline import Deadline
from generation.pace import Pace
from generation.params import GenerationParams
from generation.scheduler import Scheduler
from generation.sequence import Piece, Sequence
from generation.tokenizer import Tokenizer
from tests.deterministic_engine import DeterministicEngine, read_tokenizer
from tests.test_scheduler import prompt_of


def tokens_made(pace: Pace, tokenizer: Tokenizer, seconds: float) -> int:
    scheduler = Scheduler(DeterministicEngine(), pace, 1)
    deadline = Deadline(time.monotonic() + seconds)
    scheduler.add(Sequence(tokenizer, prompt_of(100, 0), GenerationParams(max_tokens=3), deadline))
    (*_, last) = scheduler.drive()
    assert isinstance(last.result, Piece)
    return last.result.completion_tokens


def test_one_slow_pass_refuses_a_few_requests_at_most(llama_directory: Path) -> None:
    tokenizer = read_tokenizer(llama_directory)
    for slow_rows in (0, 100):
        pace = Pace()
        for rows in (100, 0):
            pace.observe(rows, 0.001)
        pace.observe(slow_rows, 1000.0)
        made = [tokens_made(pace, tokenizer, seconds=60.0) for _ in range(8)]
        assert made[0] == 0, "nobody knows yet that it was a hiccup"
        assert made[-1] == 3


def test_refusals_forget_no_more_than_the_fastest_pass_seen() -> None:
    pace = Pace(first_pass=0.5)
    pace.refused()
    assert (pace.step, pace.row) == (0.5, None), "of a step only the warm-up's cost is known"
    pace.observe(0, 0.2)
    pace.observe(100, 3.0)
    pace.observe(100, 40.0)
    for _ in range(100):
        pace.refused()
    assert math.isclose(pace.step, 0.2)
    assert pace.row is not None
    assert math.isclose(pace.row, 0.03)
