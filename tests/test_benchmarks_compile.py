"""The benchmark of the compiler: a real compilation of the demo model, and what cannot be meant."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.compiling import measured_run
from benchmarks.compiling.report import sections


@pytest.mark.slow
def test_a_compilation_has_its_time_memory_and_size(tmp_path: Path) -> None:
    assert main(["compile", "--model", "models/demo:int4", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "compile.json").read_text())
    assert content["complete"]
    (sample,) = content["samples"]
    assert (sample["model"], sample["quantize"]) == ("demo", "int4")
    assert sample["parameters"] / 2 < sample["artifact_bytes"] < 4 * sample["parameters"]
    assert sample["peak_bytes"] > 4 * sample["parameters"]
    assert sample["seconds"] > 0
    assert "| demo to int4 |" in sections(content)["compilations"]


def test_the_peak_is_that_of_the_command_whatever_its_starter_holds(tmp_path: Path) -> None:
    held = b"x" * 400_000_000
    subprocess.run(
        [sys.executable, measured_run.__file__, str(tmp_path / "took.json"), sys.executable, "-c", "b'x' * 50_000_000"],
        check=True,
    )
    assert len(held) > 3 * json.loads((tmp_path / "took.json").read_text())["peak_bytes"] > 150_000_000


def test_what_cannot_be_meant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--model", "models/demo"]) == 2
    assert "write CHECKPOINT:PRECISION" in capsys.readouterr().err
    assert main(["compile", "--model", f"{tmp_path}:int8"]) == 2
    assert "neither a checkpoint directory nor one of" in capsys.readouterr().err
