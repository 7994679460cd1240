"""The memory benchmark: what the kernel's figures mean, what the tables make of them, and one real run."""

import json
import mmap
import os
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.memory.report import sections
from benchmarks.resident import resident
from benchmarks.weights import weights_bytes

MB = 1_000_000


def test_memory_of_its_own_is_private_and_proportional() -> None:
    before = resident(os.getpid())
    with mmap.mmap(-1, 32 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes([1]) * (32 * MB))
        after = resident(os.getpid())
    assert after.private_bytes - before.private_bytes > 31 * MB
    assert after.proportional_bytes - before.proportional_bytes > 31 * MB
    assert after.private_bytes <= after.proportional_bytes <= after.private_bytes + after.shared_bytes


def test_a_process_that_has_ended_has_no_memory() -> None:
    with pytest.raises(OSError, match="No such"):
        resident(2**22 + 1)  # beyond the kernel's largest process id


def test_only_weights_count_as_weights(tmp_path: Path) -> None:
    for name, size in {"a.safetensors": 3, "b.safetensors": 4, "config.json": 100, "heldout.txt": 100}.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert weights_bytes(tmp_path) == 7


def test_what_is_shared_is_what_is_not_private_beside_one_set_of_weights() -> None:
    shares = {"proportional_bytes": 40 * MB, "private_bytes": 10 * MB, "shared_bytes": 110 * MB}
    samples = [{"variant": "int8", "process": i, "peak_bytes": (120 + i) * MB, **shares} for i in range(4)]
    settings = {"weights_bytes": {"int8": 100 * MB}, "processes": 4, "prompt_tokens": 512}
    pieces = sections({"settings": settings, "samples": samples, "failed": {"int4": "it ended"}})
    assert "| int8 | 100 MB | 123 MB | 23 MB |" in pieces["peak"]
    assert "| int8 | 160 MB | 40 MB | 120 MB | 1.20 |" in pieces["together"]
    assert "Failed: int4: it ended" in pieces["notes"]


@pytest.mark.slow
def test_processes_are_measured_and_a_broken_model_does_not_lose_the_others(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    models = ["--model", f"broken={broken}", "--model", "demo=models/demo,THREADS=1"]
    assert main(["memory", *models, "--processes", "2", "--prompt", "32", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "memory.json").read_text())
    assert content["complete"]
    assert "LoadError" in content["failed"]["broken"]
    assert [(sample["variant"], sample["process"]) for sample in content["samples"]] == [("demo", 0), ("demo", 1)]
    for sample in content["samples"]:
        assert sample["peak_bytes"] > sample["proportional_bytes"] > sample["private_bytes"] > 20 * MB
    assert "Failed: broken" in (tmp_path / "memory.md").read_text()
