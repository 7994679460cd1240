"""The benchmark of many sequences at once: a real run on a tiny model, and what the tables make of it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.batch.report import sections


def test_a_run_counts_every_token_and_the_pages_of_long_sequences(
    llama_artifact: Path, llama_directory: Path, tmp_path: Path
) -> None:
    options = ["--checkpoint", str(llama_directory), "--model", f"tiny={llama_artifact}", "--only", "nobody"]
    parts = ["--part", "rows", "--part", "engines", "--sequences", "1", "3", "--calls", "2"]
    sizes = ["--prompt", "20", "--tokens", "5", "--out", str(tmp_path)]
    assert main(["batch", *options, *parts, *sizes]) == 0
    content = json.loads((tmp_path / "batch.json").read_text())
    assert content["complete"]
    assert not content["failed"]
    assert {each["rows"] for each in content["rows"]} == {1, 2, 4, 8, 16, 32}
    for sample in content["samples"]:
        assert sample["made"] == 5 * sample["sequences"]
        assert len(sample["first_s"]) == sample["sequences"]
        assert 0 < max(sample["first_s"]) < sample["total_s"]
    (memory,) = content["memory"]
    assert memory["cache_bytes"] == 16 * memory["tokens"] * 2 * 2 * 2 * 16 * 4, "layers, keys and values, heads, sizes"
    page = (tmp_path / "batch.md").read_text()
    assert page.count("| **tiny none** |") == 2, "both tables of engines"


def samples(contender: str, totals: list[float]) -> list[dict[str, object]]:
    return [
        {"contender": contender, "round": i, "sequences": 8, "first_s": [0.1] * 8, "total_s": total, "made": 80}
        for i, total in enumerate(totals)
    ]


def callers(state: str, lone: float, together: float, beside: float) -> list[dict[str, object]]:
    values = {"lone": lone, "together": together, "choices": 3 * lone, "one": lone, "many": 2 * lone}
    newcomer = {"alone": 0.05, "beside": beside}
    return [
        {"state": state, "variant": "ours", "scenario": name, "round": 0, "seconds": value}
        for name, value in [*values.items(), ("newcomer", newcomer)]
    ]


def test_ratios_are_taken_within_a_round_and_with_the_same_precision() -> None:
    content = {
        "machine": {"load_average_at_start": 0.0, "cpus": 2},
        "settings": {"tokens": 10, "prompt_tokens": 5, "checkpoint": "x"},
        "ours": ["ours int8"],
        "rows": [
            {"variant": "ours", "level": "l", "threads": 2, "rows": rows, "pass_s": [0.002 * rows] * 3}
            for rows in (1, 4)
        ],
        "samples": [
            *samples("ours int8", [1.0, 2.0, 4.0]),
            *samples("theirs int8", [3.0, 6.0, 12.0]),
            *samples("theirs int4", [9.0, 9.0, 9.0]),
        ],
        "memory": [],
        "callers": [*callers("before", 0.2, 1.6, 0.5), *callers("now", 0.2, 0.4, 0.1)],
        "failed": {},
        "skipped": [],
    }
    found = sections(content)
    assert found["ratios"].splitlines()[2:] == ["| ours int8 / theirs int8 | 3.00 |"]
    assert "| ours, l, 2 threads | 2 (1.00) | 8 (4.00) |" in found["rows"]
    assert "| ours: the same, tokens a second | 100 | 400 | **4.00** |" in found["callers"]
    assert "| ours: first token of a newcomer beside 7, times alone | 10.00 | 2.00 | **5.00** |" in found["callers"]
    assert "| ours: 8 choices of one prompt, times one request | 3.00 | 3.00 | **1.00** |" in found["callers"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--calls", "0"], "--calls 0: at least one is needed."),
        (["--tokens", "1"], "--tokens 1: at least two are needed."),
        ([], "--model a: an artifact is needed, and demo is none."),
        (["--before", "docs"], "--before docs is not a checkout of this project."),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "--model", "a=models/demo", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_engines_that_answered_nothing_have_no_ratio() -> None:
    content = json.loads(Path("benchmarks/results/batch.json").read_text())
    (rival,) = {s["contender"] for s in content["samples"] if "CTranslate2" in s["contender"]}
    content["samples"] = [s for s in content["samples"] if s["contender"] == rival and s["sequences"] == 1]
    content["samples"] += [{**content["samples"][0], "contender": "other int4", "sequences": 2}]
    rows = [row for row in sections(content)["ratios"].splitlines() if rival in row]
    assert rows
    assert all(row.endswith("| - | - |") for row in rows)
