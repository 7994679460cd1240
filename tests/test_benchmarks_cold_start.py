"""Cold starts: the files that one opens, its phases, and what the tables make of them."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks.cold_start.container import require_docker
from benchmarks.cold_start.observe import opened_in
from benchmarks.cold_start.remains import beside_weights, file_sizes, import_times, remains
from benchmarks.cold_start.report import PHASES, sections, split
from benchmarks.errors import NotInstalledError

ROOT = Path(__file__).resolve().parent.parent
COLD = {
    "variant": "a", "memory_mb": None, "cache": "warm", "round": 0, "to_first_answer_s": 2.0,
    "phases_s": {"start": 0.1, "app_imports": 0.2, "imports": 0.5, "weights": 0.3, "tokenizer": 0.4,
                 "warm_up": 0.1, "total": 1.7},
}  # fmt: skip


def test_a_trace_counts_each_file_once_and_no_directory_or_kernel_file() -> None:
    trace = (
        '12 openat(AT_FDCWD, "/lib/a.so", O_RDONLY|O_CLOEXEC) = 3\n'
        '13 openat(AT_FDCWD, "/lib/./a.so", O_RDONLY) = 3\n'
        '12 open("/lib/b.so", O_RDONLY) = 3\n'
        '12 openat(AT_FDCWD, "/lib", O_RDONLY|O_DIRECTORY) = 3\n'
        '12 openat(AT_FDCWD, "/proc/self/stat", O_RDONLY) = 3\n'
        '12 execve("/usr/bin/python", [], 0x0) = 0\n'
    )
    assert opened_in(trace) == {"/lib/a.so", "/lib/b.so"}


def test_what_remains_of_a_cold_start_is_told_by_package_and_by_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(5_000_000))
    (tmp_path / "tokenizer.json").write_bytes(bytes(2_000_000))
    opened = {str(tmp_path / "tokenizer.json"), str(tmp_path / "weights.bin"), str(ROOT / "handler.py"), "/no/such"}
    files = file_sizes(opened, tmp_path)
    imports = import_times([
        "import time: self [us] | cumulative | imported package",
        "import time:       500 |       1500 |   json.decoder",
        "import time:      1500 |       2000 | json",
        "import time:     90000 |      99000 | handler",
        "START RequestId",
    ])  # fmt: skip
    assert imports == {"json": 2.0}
    assert list(files) == ["the model's weights.bin", "the model's tokenizer.json", "handler.py", "/no/such"]
    assert 2_000_000 < beside_weights(files) < 2_100_000
    shown = remains({"remains": {"a": {"imports_ms": imports, "files": files}}})
    assert "| `json` | 2.0 |" in shown
    assert "| all 4, weights aside | **2.0** |" in shown


def test_containers_are_skipped_by_name_where_docker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotInstalledError, match=r"Docker does not answer; apt-get install docker\.io"):
        require_docker()


def test_the_phases_of_a_cold_start_add_up_to_the_whole() -> None:
    parts = split(COLD)
    assert set(parts) == set(PHASES)
    assert sum(parts.values()) == pytest.approx(2.0)
    assert parts["rest"] == pytest.approx(0.1)


def test_memory_sizes_beyond_the_machine_are_named() -> None:
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "settings": {"models": {"a": {"engine": "compiled"}}},
        "failed": {}, "files_opened": {}, "samples": [{**COLD, "memory_mb": size} for size in (512, 10_240)],
    }  # fmt: skip
    assert sections(content)["notes"] == (
        "- 10,240 MB: Lambda gives more than this machine's 2 vCPUs; measured with 2.\n"
    )


def test_cold_starts_stand_by_their_prompts_where_one_was_baked() -> None:
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "failed": {}, "files_opened": {},
        "settings": {"models": {"short": {"engine": "compiled"}, "baked": {"engine": "compiled"}}},
        "samples": [
            {**COLD, "variant": name, "cache": cache, "round": 0, "to_first_answer_s": took,
             "prompt_tokens": tokens, "cached_tokens": baked}
            for name, tokens, baked, took in (("short", 20, 0, 0.1), ("baked", 1_020, 992, 0.2))
            for cache in ("cold", "warm")
        ],
    }  # fmt: skip
    assert "| baked | 1,020 | 992 | 200 ms | 200 ms |" in sections(content)["prompts"]
    content["samples"] = [sample | {"cached_tokens": 0} for sample in content["samples"]]
    assert "prompts" not in sections(content)


def test_images_are_compared_with_the_first_of_their_own_tag() -> None:
    models = {
        name: {"engine": "container", "model": f"{name}:{tag}"} for name, tag in (("a", "x"), ("b", "y"), ("c", "y"))
    }
    took = {"a": 1.0, "b": 8.0, "c": 2.0}
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "settings": {"models": models}, "failed": {},
        "files_opened": {"a": 9, "b": 1_000, "c": 50}, "image_bytes": dict.fromkeys(models, 10 ** 8),
        "samples": [
            {**COLD, "variant": name, "cache": cache, "round": i, "to_first_answer_s": seconds,
             "disk_read_bytes": 3e7 * (cache == "cold")}
            for name, seconds in took.items() for cache in ("cold", "warm") for i in range(3)
        ],
    }  # fmt: skip
    found = sections(content)
    assert found["notes"].count("times as fast as") == 2
    assert "c, all CPUs, warm cache: 4.00 times as fast as b" in found["notes"]
    assert "| c | 100 MB | 2.00 s | 2.00 s | 50 | 30 MB |" in found["images"]
