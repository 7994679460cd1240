"""The results file of a run: what it keeps, and when it is written."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.errors import InputError, NothingMeasuredError
from benchmarks.report import markdown
from benchmarks.results import Recorder, load_result

SAMPLE = {"asked": "warm", "round": 0, "client_s": 0.1}


def test_a_results_file_keeps_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["b", "warm", "--model", "a=/home/me/models/m,THREADS=1", "--out", "/tmp/x/y"])
    recorder = Recorder(tmp_path / "r.json", "warm", "What.", {})
    recorder.data = {"samples": [SAMPLE]}
    recorder.save(complete=True)
    assert load_result(tmp_path / "r.json")["command"] == "python -m benchmarks warm --model a=m,THREADS=1 --out y"


def test_an_interrupted_run_keeps_its_samples_and_says_that_it_is_partial(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.json", "remote", "What.", {"prices": {}, "memory": 1})
    recorder.data = {"samples": [SAMPLE], "notes": []}
    recorder.save(complete=False)
    content = load_result(tmp_path / "r.json", "remote")
    assert not content["complete"]
    assert "interrupted" in markdown(content)
    with pytest.raises(InputError, match="holds results of remote"):
        load_result(tmp_path / "r.json", "warm")


@pytest.mark.parametrize("samples", [[], [{"status": 0}, {"status": 429}]], ids=["none", "errors"])
def test_a_run_in_which_everything_failed_leaves_the_results_of_the_one_before(
    samples: list[dict[str, int]], tmp_path: Path
) -> None:
    kept = tmp_path / "r.json"
    kept.write_text("what was measured before")
    recorder = Recorder(kept, "load", "What.", {})
    recorder.data = {"samples": samples, "failed": {"a": "it died"}, "skipped": ["b is not installed"]}
    recorder.save(complete=False)
    with pytest.raises(NothingMeasuredError, match=r"r\.json is left as it was: a: it died; b is not installed"):
        recorder.save(complete=True)
    assert kept.read_text() == "what was measured before"


def test_a_folder_that_cannot_take_results_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=rf"--out {out} cannot be a folder"):
            Recorder(out / "r.json", "warm", "What.", {})
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="nothing can be written to"):
        Recorder(tmp_path / "r.json", "warm", "What.", {})
