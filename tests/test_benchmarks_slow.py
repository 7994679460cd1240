"""The measurements themselves, for real and as small as they get, on the demo checkpoint."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.slow


def measure(arguments: list[str], tmp_path: Path) -> dict[str, Any]:
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    content: dict[str, Any] = json.loads((tmp_path / f"{arguments[0]}.json").read_text())
    assert content["complete"]
    return content


def test_a_cold_start_is_split_into_phases_and_a_broken_model_does_not_lose_the_others(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    models = ["--model", "demo=models/demo", "--model", f"broken={broken}"]
    content = measure(["cold-start", *models, "--runs", "2"], tmp_path)
    assert [sample["variant"] for sample in content["samples"]] == ["demo", "demo"]
    assert "broken, all CPUs, warm cache" in content["failed"]
    sample = content["samples"][0]
    # The kernel rounds the instant a process started down to a tick, so the function may count up to one too many.
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert sample["to_first_answer_s"] + tick > sample["phases_s"]["total"] > sample["phases_s"]["imports"] > 0
    assert sample["peak_memory_bytes"] > 50e6
    assert "Failed: broken" in (tmp_path / "cold-start.md").read_text()


def test_warm_requests_have_the_lengths_asked_for_and_the_floor_is_below_them(tmp_path: Path) -> None:
    lengths = ["--prompt", "8", "32", "--output", "4", "--prompts", "1", "2", "--calls", "3"]
    content = measure(["warm", "--model", "demo=models/demo", *lengths], tmp_path)
    assert {(s["prompt_tokens"], s["output_tokens"], s["prompts"]) for s in content["samples"]} == {
        (8, 4, 1),
        (32, 4, 1),
        (32, 4, 2),
    }
    assert all(s["completion_tokens"] == s["output_tokens"] * s["prompts"] for s in content["samples"])
    assert all(s["call_s"] >= s["total_s"] >= s["first_token_s"] > 0 for s in content["samples"])
    warm = str(tmp_path / "warm.json")
    floor = measure(["roofline", "--model", "models/demo", "--warm", warm, "--repeats", "2"], tmp_path)
    (engine,) = floor["engines"]
    assert 0 < engine["floor_s"] < engine["per_token_s"]
    assert {prefill["prompt_tokens"] for prefill in floor["prefills"]} == {8, 32}
    assert all(prefill["operations_per_s"] > 0 for prefill in floor["prefills"])


def test_our_engine_says_what_transformers_says_and_an_absent_peer_is_named(tmp_path: Path) -> None:
    quick = ["--starts", "2", "--calls", "2", "--tokens", "4", "--prompt", "8", "--threads", "1"]
    models = ["--checkpoint", "models/demo", "--model", "ours=models/demo,DTYPE=float32"]
    absent = ["--python", "llama-cpp-python=/nowhere/python", "--python", "ctranslate2=/nowhere/python"]
    content = measure(["peers", *models, *quick, *absent], tmp_path)
    assert content["agreement"]["ours float32"] == {"first_token": 1.0, "text": 1.0}
    assert any("make bench-peers" in reason for reason in content["skipped"])
    assert {sample["contender"] for sample in content["samples"]} >= {"transformers float32", "ours float32"}
