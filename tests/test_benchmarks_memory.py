"""The memory benchmark: what the kernel's figures mean, what the tables make of them, and one real run."""

import json
import mmap
import os
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.memory.report import sections
from benchmarks.resident import Resident, resident, resident_of
from benchmarks.weights import weights_bytes
from tests.baking import bake

MB = 1_000_000


def test_memory_of_its_own_is_private_and_proportional() -> None:
    before = resident(os.getpid())
    with mmap.mmap(-1, 32 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes([1]) * (32 * MB))
        after = resident(os.getpid())
    assert after.private_bytes - before.private_bytes > 31 * MB
    assert after.proportional_bytes - before.proportional_bytes > 31 * MB
    assert after.private_bytes <= after.proportional_bytes <= after.private_bytes + after.shared_bytes


def test_a_mapped_file_is_told_from_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(8 * MB))
    assert resident_of(os.getpid(), path) == Resident(0, 0, 0)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        assert sum(mapping[i] for i in range(0, 4 * MB, 4096)) == 0
        found = resident_of(os.getpid(), path)
    assert 4 * MB <= found.proportional_bytes == found.private_bytes + found.shared_bytes <= 8 * MB + 4096


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
    assert pieces["baked"] == ""


def test_pages_that_all_processes_have_are_one_copy_of_their_file() -> None:
    rest = {"proportional_bytes": 40 * MB, "private_bytes": 10 * MB, "shared_bytes": 110 * MB}
    own = {"proportional_bytes": 3 * MB, "private_bytes": 0, "shared_bytes": 23 * MB}
    samples = [{"variant": "a", "process": i, "peak_bytes": MB, **rest, "baked": own} for i in range(8)]
    settings = {
        "weights_bytes": {"a": 100 * MB}, "processes": 8, "prompt_tokens": 1020,
        "baked": {"a": {"tokens": 992, "file_bytes": 24 * MB}},
    }  # fmt: skip
    pieces = sections({"settings": settings, "samples": samples, "failed": {}})
    assert "| a | 992 | 24.0 MB | 23.0 MB | 24.0 MB | **1.00** |" in pieces["baked"]


def test_a_prompt_that_a_model_has_read_already_is_refused(
    tmp_path: Path, llama_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "read.txt").write_text("the quick brown fox " * 12)
    baked = bake(llama_artifact, tmp_path / "baked", tmp_path / "read.txt")
    assert main(["memory", "--model", f"baked={baked}", "--prompt", "16", "--out", str(tmp_path)]) == 2
    assert "baked has read" in capsys.readouterr().err


def test_processes_hold_the_pages_of_a_baked_prompt_together(tmp_path: Path, llama_artifact: Path) -> None:
    (tmp_path / "read.txt").write_text("the quick brown fox " * 40)
    baked = bake(llama_artifact, tmp_path / "baked", tmp_path / "read.txt")
    options = ["--model", f"baked={baked}", "--prompt", "600", "--processes", "2", "--out", str(tmp_path)]
    assert main(["memory", *options]) == 0
    content = json.loads((tmp_path / "memory.json").read_text())
    assert content["failed"] == {}
    size = content["settings"]["baked"]["baked"]["file_bytes"]
    held = [sample["baked"] for sample in content["samples"]]
    assert all(own["shared_bytes"] > size - 2 * 4096 for own in held)
    assert sum(own["proportional_bytes"] for own in held) <= size + 2 * 4096


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
