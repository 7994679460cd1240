"""The times of a function from results files."""

from typing import Any

import pytest

from benchmarks.break_even.measured import measured_cold, measured_typical, measured_warm
from benchmarks.errors import InputError


def test_break_even_takes_its_times_from_measured_files() -> None:
    phases = {"start": 0.1, "imports": 0.5, "weights": 0.3, "tokenizer": 0.4, "total": 1.7}
    cold = {"variant": "a", "memory_mb": None, "cache": "warm", "phases_s": phases}
    content: dict[str, Any] = {"settings": {"models": {"a": {}}}, "samples": [cold]}
    assert measured_cold(content, None) == {"cold_s": 1.7, "load_s": 0.7}
    warm = {"variant": "a", "prompts": 1, "prompt_tokens": 8}
    content["samples"] = [{**warm, "output_tokens": n, "call_s": n * 0.1} for n in (10, 30)]
    assert measured_warm(content, "a") == {"warm_s": pytest.approx(2.0), "warm_cv": pytest.approx(0.5)}
    kinds = [("typical", True, 1.0), ("typical", True, 3.0), ("typical", False, 9.0), ("seen", True, 7.0)]
    content["samples"] = [{"variant": "a", "kind": k, "reuses": r, "call_s": s} for k, r, s in kinds]
    assert measured_typical(content, "a") == {"warm_s": 2.0, "warm_cv": 0.5}
    with pytest.raises(InputError, match="is not in these results"):
        measured_cold(content, "b")
