"""The benchmark of prefix reuse: one real run on the demo model, and what the tables make of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.prefix.report import sections
from tests.baking import bake


def test_a_run_finds_the_beginning_only_where_it_is_kept(
    tmp_path: Path, llama_directory: Path, compiled: Callable[..., Path]
) -> None:
    artifact = compiled(llama_directory, "none")
    (tmp_path / "read.txt").write_text("the quick brown fox " * 12)
    baked = bake(artifact, tmp_path / "baked", tmp_path / "read.txt")
    options = ["--model", f"tiny={artifact}", "--baked", f"baked={baked}", "--out", str(tmp_path)]
    options += ["--runs", "2", "--shared", "200", "--answer", "4"]
    absent = ["--python", "llama-cpp-python=/nowhere/python", "--python", "openvino-genai=/nowhere/python"]
    assert main(["prefix", *options, *absent]) == 0
    content = json.loads((tmp_path / "prefix.json").read_text())
    assert content["complete"]
    found = {(sample["kind"], sample["reuses"], sample["cached_tokens"]) for sample in content["samples"]}
    assert found == {
        ("short", True, 0),
        ("short", False, 0),
        ("seen", True, 192),
        ("seen", False, 0),
        ("typical", True, 192),
        ("typical", False, 0),
    }
    started = [(sample["who"], sample["kind"], sample["round"]) for sample in content["starts"]]
    assert sorted(started) == [("baked", kind, i) for kind in ("read", "short") for i in (1, 2)]
    page = (tmp_path / "prefix.md").read_text()
    read = content["settings"]["read"]["tokens"]
    assert f"| process start to first token, median ms | 20 tokens | {read} read before, 20 new | ratio |" in page
    assert page.count("| baked | ") == 1
    assert page.count("| tiny | ") == 2
    assert all(f"Not measured: {peer} is not installed" in page for peer in ("llama.cpp", "OpenVINO"))


def test_the_tables_hold_ratios_within_rounds_and_lambda_s_price() -> None:
    samples = [
        {"variant": "a", "reuses": reuses, "kind": kind, "round": i, "first_token_s": first, "call_s": call}
        for kind, reuses, first, call in (
            ("short", True, 0.010, 0.1),
            ("seen", True, 0.012, 0.1),
            ("seen", False, 0.6, 0.1),
            ("typical", True, 0.012, 0.5),
            ("typical", False, 0.6, 1.0),
        )
        for i in range(3)
    ]
    settings = {
        "models": {"a": {}}, "runs": 3, "shared": 1000, "new": 20, "question": 50, "answer": 60, "memory": 2048,
        "prices": {"region": "us-east-1", "request": 2e-7, "gb_second": 1.5e-5},
    }  # fmt: skip
    content = {"settings": settings, "samples": samples, "peers": [], "skipped": [], "failed": {}}
    assert "Not measured yet" in sections(content)["starts"]
    settings["read"] = {"tokens": 992, "file_bytes": {"ours": 22_860_000, "theirs": 46_000_000}}
    content["starts"] = [
        {"who": "ours", "kind": kind, "round": i, "first_token_s": seconds}
        for i in (2, 1)
        for kind, seconds in (("short", 0.1), ("read", 0.12))
    ]
    tables = sections(content)
    assert "| ours | 100 | 120 | **1.20** | 22.9 MB |" in tables["starts"]
    assert "theirs" not in tables["starts"]
    assert "| a | 10 | 12 | **1.20** | 600 |" in tables["first-token"]
    assert "| a | 1,000 ms | 500 ms | **0.50** | $30.20 | $15.20 |" in tables["typical"]


@pytest.mark.parametrize("option", ["--runs", "--shared", "--new", "--question", "--answer"])
def test_what_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefix", option, "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
