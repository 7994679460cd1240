"""The benchmark of answers with little time left: a real run on the demo model, and what the table makes of it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.deadlines.report import sections


@pytest.mark.slow
def test_a_run_answers_every_case(tmp_path: Path) -> None:
    options = ["--model", "demo=models/demo", "--calls", "1", "--prompt", "400", "--out", str(tmp_path)]
    assert main(["deadlines", *options]) == 0
    content = json.loads((tmp_path / "deadlines.json").read_text())
    assert content["complete"]
    assert len(content["samples"]) == 2 * 9
    assert all(sample["took_s"] > 0 for sample in content["samples"])


def test_answers_after_the_time_that_was_left_are_late() -> None:
    samples = [
        {"variant": "a", "case": "prompt", "machine": "quiet", "left_s": 0.3, "took_s": took, "cut": True}
        for took in (0.1, 0.2, 0.4)
    ]
    content = {"samples": samples, "settings": {"prompt_tokens": 1988, "calls": 3}}
    assert "| a, prompt, quiet | 300 ms | 200 ms | 400 ms | 1 of 3 |" in sections(content)["answers"]


def test_what_cannot_be_meant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deadlines", "--calls", "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
