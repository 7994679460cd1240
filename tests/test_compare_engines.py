"""`make compare`, as a person sees it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT
from tools import compare_engines
from tools.compare_engines import compare, compiled
from tools.screen import Screen


def test_both_engines_are_in_one_picture(
    llama_directory: Path, llama_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(Screen(width=90, styled=False, block="#"), llama_directory, llama_artifact)
    shown = capsys.readouterr().out
    milliseconds = {
        (engine.strip(), label.strip()): float(ms.replace(",", ""))
        for engine, label, ms in re.findall(
            r"^  (transformers |compiled int8) (.+?) +([0-9.,]+) ms", shown, re.MULTILINE
        )
    }
    for label in ("imports of the engine", "weights", "until ready", "first", "later"):
        assert milliseconds["transformers", label] > 0
        assert ("compiled int8", label) in milliseconds
    assert milliseconds["compiled int8", "until ready"] < milliseconds["transformers", "until ready"]
    bars = dict(re.findall(r"^  (transformers |compiled int8) until ready .*? ms +(#+)", shown, re.MULTILINE))
    assert len(bars["compiled int8"]) < len(bars["transformers "]), "one scale for both"
    assert max(map(len, shown.splitlines())) <= 90


def test_an_artifact_of_another_checkpoint_or_format_is_compiled_again(
    llama_directory: Path, llama_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilations: list[list[str]] = []

    def compiler(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        compilations.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(compare_engines, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", compiler)
    checkpoint = Path(shutil.copytree(llama_directory, tmp_path / "mine"))
    artifact = Path(shutil.copytree(llama_artifact, tmp_path / "build" / "mine-int8"))
    assert compiled(checkpoint) == artifact
    assert compilations == []
    manifest = artifact / "manifest.json"
    sound = manifest.read_text()
    manifest.write_text(sound.replace('"format": ', '"format": 1'))
    assert compiled(checkpoint) == artifact
    assert len(compilations) == 1
    manifest.write_text(sound)
    (checkpoint / "config.json").write_text((checkpoint / "config.json").read_text() + " ")
    assert compiled(checkpoint) == artifact
    assert len(compilations) == 2


def test_an_artifact_is_no_checkpoint_to_compare(llama_artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.compare_engines"],
        cwd=ROOT,
        env={**os.environ, "MODEL_DIR": str(llama_artifact)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "is compiled already" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
