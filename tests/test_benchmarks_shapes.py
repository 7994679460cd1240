"""The benchmark of answers in shape: one real run on the demo model, and what the tables make of it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.shapes.report import sections


def test_a_run_measures_answers_in_shape_beside_free_ones(tmp_path: Path) -> None:
    options = ["--model", "demo=models/demo", "--rounds", "1", "--calls", "2", "--tokens", "20", "--prompt", "4"]
    assert main(["shapes", *options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "shapes.json").read_text())
    assert content["complete"]
    (sample,) = content["samples"]
    assert [answer["kind"] for answer in sample["answers"]] == ["free", "shaped"] * 2
    assert [answer["tokens"] for answer in sample["answers"]][::2] == [20, 20]
    assert sample["first_prepare_s"] > sample["again_prepare_s"]
    assert (tmp_path / "shapes.md").read_text().count("| demo |") == 2


def test_the_tables_set_json_beside_free_text() -> None:
    answers = [{"kind": "free", "tokens": 61, "decode_s": 0.6}, {"kind": "shaped", "tokens": 61, "decode_s": 0.3}]
    sample = {
        "variant": "a",
        "vocabulary": 150_000,
        "answers": answers,
        "mask_s": [0.0001] * 100,
        "free_prepare_s": 0.001,
        "first_prepare_s": 0.131,
        "another_prepare_s": 0.003,
        "again_prepare_s": 0.001,
    }
    made = sections({"samples": [sample], "settings": {"models": {"a": {}}}})
    assert "| a | 150,000 | 100 | 200 | 2.00 | 61 | 100 µs | 100 µs | 1 % |" in made["speed"]
    assert "| a | 130.0 ms | 2.0 ms | 0.0 ms |" in made["first"]


@pytest.mark.parametrize("option", ["--rounds", "--calls", "--prompt", "--tokens"])
def test_what_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shapes", option, "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
