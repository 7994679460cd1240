"""The command line of the benchmarks: what cannot be meant, and what it costs to say what there is."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cold-start", "--runs", "0"], "at least one run"),
        (["cold-start", "--memory-mb", "9"], "128 to 10240 MB"),
        (["cold-start", "--image", "causallm"], "--image takes NAME=IMAGE"),
        (["cold-start", "--model", "demo=models/demo", "--prompt", "other=20"], "--prompt takes NAME=TOKENS"),
        (["cold-start", "--model", "demo=models/demo", "--prompt", "demo=0"], "--prompt takes NAME=TOKENS"),
        (["load", "--workers", "0"], "at least one"),
        (["load", "--rate", "0"], "above zero"),
        (["load", "--rate", "nan"], "above zero"),
        (["load", "--workers", "1", "1"], "--workers names one twice: 1 1"),
        (["load", "--rate", "1", "1.0"], "--rate names one twice: 1 1"),
        (["load", "--seed", "-1"], "--seed -1: zero or more"),
        (["distributed-map", "--seed", "-1"], "--seed -1: zero or more"),
        (["load", "--rate", "5000"], "more than 20,000"),
        (["warm", "--calls", "1"], "at least two calls"),
        (["warm", "--prompt", "0"], "--prompt 0"),
        (["roofline", "--repeats", "1"], "at least two"),
        (["roofline", "--warm", "/nowhere.json"], "/nowhere.json does not exist"),
        (["peers", "--tokens", "1"], "--tokens 1"),
        (["peers", "--python", "nobody=/x"], "--python takes PEER=PATH"),
        (["peers", "--checkpoint", "/nowhere"], "neither a checkpoint directory nor"),
        (["memory", "--processes", "1"], "--processes 1: at least two"),
        (["memory", "--prompt", "0"], "--prompt 0"),
        (["memory", "--model", "a=models/demo,MAX_TOKENS=9"], "MAX_TOKENS=9 is not understood"),
        (["memory", "--model", "a=models/demo,THREADS=many"], "THREADS=many is not understood"),
        (["fidelity", "--checkpoint", "/nowhere"], "neither a checkpoint directory nor"),
        (["fidelity", "--text", "/nowhere.txt"], "/nowhere.txt holds no text"),
        (["fidelity", "--quantize", "int8", "int8"], "names one twice"),
        (["compile", "--model", "models/demo:int8", "--model", "/nowhere:int8"], "neither a checkpoint directory nor"),
        (["prefix", "--memory", "0"], "--memory 0: Lambda gives 128 to 10240 MB"),
        (["prefix", "--region", "moon-1"], "no prices for region 'moon-1'"),
        (["prefix", "--checkpoint", "/nowhere"], "neither a checkpoint directory nor"),
        (["prefix", "--baked", "d=models/demo"], "--baked d: an artifact is needed, and demo is none"),
        (["break-even", "--cold-s", "1"], "--load-s, --warm-s: give seconds by hand"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_measurement_needs_torch_to_say_what_it_does() -> None:
    code = (
        "import sys; sys.argv = ['b', '--help']; import runpy\ntry: runpy.run_module('benchmarks', run_name='__main__')"
    )
    code += "\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_a_run_whose_only_model_fails_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["memory", "--model", f"broken={tmp_path}", "--out", str(tmp_path)]) == 2
    assert "memory: nothing was measured, and " in (said := capsys.readouterr().err)
    assert "left as it was: broken: " in said
    assert not list(tmp_path.glob("memory*"))
