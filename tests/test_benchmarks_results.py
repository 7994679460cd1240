"""The results file of a run: what it keeps, and when it is written."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.errors import InputError
from benchmarks.report import markdown
from benchmarks.results import Recorder, load_result


def test_a_results_file_keeps_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["b", "warm", "--model", "a=/home/me/models/m,THREADS=1", "--out", "/tmp/x/y"])
    recorder = Recorder(tmp_path / "r.json", "warm", "What.", {})
    recorder.save(complete=True)
    assert load_result(tmp_path / "r.json")["command"] == "python -m benchmarks warm --model a=m,THREADS=1 --out y"


def test_an_interrupted_run_keeps_its_samples_and_says_that_it_is_partial(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.json", "remote", "What.", {"prices": {}, "memory": 1})
    recorder.data = {"samples": [], "notes": []}
    recorder.save(complete=False)
    content = load_result(tmp_path / "r.json", "remote")
    assert not content["complete"]
    assert "interrupted" in markdown(content)
    with pytest.raises(InputError, match="holds results of remote"):
        load_result(tmp_path / "r.json", "warm")
