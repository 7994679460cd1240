"""`make compare`, as a person sees it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT
from tools.compare_engines import compare
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
