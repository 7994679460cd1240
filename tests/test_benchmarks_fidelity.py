"""The fidelity benchmark: its table, the card that quotes it, and one real run on a tiny checkpoint."""

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks import checkpoints
from benchmarks.__main__ import main
from benchmarks.fidelity.report import sections
from tools.demo_card import Measured, Trained, model_card

ROOT = Path(__file__).parents[1]
SETTINGS = {"checkpoint": "demo", "text": "heldout.txt", "size_bytes": 7_000_000, "weights_bytes": 6_900_000}


def test_perplexity_is_shown_with_its_change() -> None:
    sample = {
        "variant": "compiled, int8", "perplexity": [1.98, 2.0], "divergence": 0.00123, "positions": 1234,
        "agreement": 0.975, "difference": 0.034, "size_bytes": 4_300_000, "weights_bytes": 1_900_000,
    }  # fmt: skip
    pieces = sections({"settings": SETTINGS, "samples": [sample], "failed": {"compiled, int4": "no g++"}})
    assert "1,234 tokens of `heldout.txt`" in pieces["figures"]
    assert "| transformers, float32 | 2.0000 |  |  |  | 7.0 MB | 6.9 MB |" in pieces["figures"]
    assert "| compiled, int8 | 1.9800 (-1.00%) | 0.00123 | 97.50% | 3.4e-02 | 4.3 MB | 1.9 MB |" in pieces["figures"]
    assert "Failed: compiled, int4: no g++" in pieces["notes"]


def test_a_retrained_card_quotes_what_the_committed_one_quotes() -> None:
    stage, example = Trained(steps=10, tokens=1000, loss=0.4, seconds=60.0), ("request", "answer")
    card = model_card(Measured(1, "x86_64", "torch", (stage,) * 3, 1.5, 100, 199, 200, 99, 100, *[example] * 3))
    marks = re.compile(r"<!-- benchmarks:.* -->")
    assert marks.findall(card) == marks.findall((ROOT / "models" / "demo" / "README.md").read_text("utf-8"))
    assert "<!-- benchmarks:fidelity:figures -->" in card


@pytest.mark.slow
def test_precisions_are_compared_and_one_that_fails_does_not_lose_the_others(
    llama_directory: Path, llama_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "COMPILED", tmp_path / "artifacts")
    compiled = tmp_path / "artifacts" / checkpoints.compiler_digest()
    shutil.copytree(llama_artifact, compiled / f"{llama_directory.name}-none")
    foreign = compiled / f"{llama_directory.name}-int8"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"model": {"sha256": "of something else"}}')
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    arguments = ["--checkpoint", str(llama_directory), "--text", str(text), "--quantize", "int8", "none"]
    assert main(["fidelity", *arguments, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "fidelity.json").read_text())
    assert content["complete"]
    assert "was compiled from other weights; remove it" in content["failed"]["compiled, int8"]
    half, exact = content["samples"]
    assert [half["variant"], exact["variant"]] == ["transformers, bfloat16", "compiled, none"]
    assert exact["difference"] < 1e-4 < half["difference"]
    assert exact["agreement"] > 0.999
    assert abs(exact["perplexity"][0] / exact["perplexity"][1] - 1) < 1e-5
    assert half["perplexity"][1] == exact["perplexity"][1]


def test_a_text_or_checkpoint_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xff\xfe")
    assert main(["fidelity", "--text", str(text), "--out", str(tmp_path)]) == 2
    assert "text.txt is not UTF-8 (byte 0)." in capsys.readouterr().err
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_text("{}")
    assert main(["fidelity", "--checkpoint", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "is an artifact; the checkpoint that it was compiled from is needed." in capsys.readouterr().err
