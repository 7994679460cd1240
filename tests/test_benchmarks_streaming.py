"""The streaming benchmark: one real run on the demo model, and what the table makes of it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.streaming.report import sections


def test_a_run_finds_the_first_byte_of_a_stream_before_its_last(tmp_path: Path) -> None:
    options = ["--model", "demo=models/demo", "--calls", "2", "--output", "4", "60", "--out", str(tmp_path)]
    assert main(["streaming", *options]) == 0
    content = json.loads((tmp_path / "streaming.json").read_text())
    assert content["complete"]
    samples = content["samples"]
    assert len(samples) == 2 * 2 * 2
    assert {(sample["prompt_tokens"], sample["output_tokens"]) for sample in samples} == {(16, 4), (16, 60)}
    for sample in samples:
        assert 0 < sample["first_byte_s"] <= sample["last_byte_s"]
        assert (sample["first_byte_s"] < sample["last_byte_s"]) == (sample["door"] == "streamed")
    assert (tmp_path / "streaming.md").read_text().count("| demo, ") == 2


def test_the_table_sets_medians_side_by_side() -> None:
    samples = [
        {"variant": "a", "door": door, "output_tokens": 20, "first_byte_s": first, "last_byte_s": 0.5}
        for door, firsts in (("streamed", (0.01, 0.02, 0.03)), ("whole", (0.4, 0.5, 0.9)))
        for first in firsts
    ]
    content = {"samples": samples, "settings": {"models": {"a": {}}, "prompt_tokens": 16, "calls": 3}}
    assert "| a, 20 tokens | **20 ms** | 500 ms | 500 ms | 500 ms |" in sections(content)["first-byte"]


def test_lengths_are_those_that_were_made_and_a_prompt_that_is_too_long_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "demo=models/demo,MAX_TOKENS=5", "--calls", "1", "--output", "20", "--out", str(tmp_path)]
    assert main(["streaming", *options, "--prompt", "30"]) == 0
    assert "| demo, 5 tokens |" in (tmp_path / "streaming.md").read_text()
    assert main(["streaming", *options, "--prompt", "600"]) == 2
    assert "The function does not answer: The prompt is 600 tokens long" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--calls", "--prompt", "--output"])
def test_what_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["streaming", option, "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
