"""Warm requests: a sample says what was sent and made."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks.results import Recorder
from benchmarks.variants import Variant
from benchmarks.warm.command import Cell, _call
from benchmarks.warm.report import sections


def test_lengths_are_those_that_were_made(tmp_path: Path) -> None:
    timings = dict.fromkeys(("prefill_ms", "decode_ms", "total_ms", "time_to_first_token_ms"), 1.0)
    usage = {"prompt_tokens": 40, "completion_tokens": 10}
    reply = SimpleNamespace(payload={"timings": timings, "usage": usage}, seconds=0.1)
    emulator: Any = SimpleNamespace(invoke=lambda event, timeout: reply)
    recorder = Recorder(tmp_path / "warm.json", "warm", "What.", {"models": {"a": {}}})
    recorder.data = {"samples": [], "pings": [], "failed": {}}
    _call(emulator, Variant("a", tmp_path), Cell(20, 300, prompts=2), 0, recorder)
    assert not recorder.data["failed"]
    content = {"machine": {"load_average_at_start": 0.0, "cpus": 2}, "settings": recorder.settings, **recorder.data}
    assert "| a: 2 x 20 tokens in, 5 out |" in sections(content)["requests"]
