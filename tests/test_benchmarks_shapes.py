"""The benchmark of answers in shape: one real run on the demo model, and what the tables make of it."""

import base64
import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks.__main__ import main
from benchmarks.errors import NotInstalledError
from benchmarks.shapes import command, masks, vocabularies
from benchmarks.shapes.report import sections


def test_a_run_measures_answers_in_shape_and_calls_beside_free_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GreedyTokenizer", no_vocabulary)
    options = ["--model", "demo=models/demo", "--rounds", "1", "--calls", "2", "--tokens", "20", "--prompt", "4"]
    options += [
        "--peers-of",
        "models/demo",
        "--python",
        "llama-cpp-python=/nowhere",
        "--python",
        "openvino-genai=/nowhere",
    ]
    assert main(["shapes", *options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "shapes.json").read_text())
    assert content["complete"]
    (sample,) = content["samples"]
    assert [answer["kind"] for answer in sample["answers"]] == ["free", "shaped", "chat", "tools"] * 2
    assert {answer["tokens"] for answer in sample["answers"] if answer["kind"] != "shaped"} == {20}
    assert sample["first_s"] > sample["again_s"]
    page = (tmp_path / "shapes.md").read_text()
    assert page.count("| demo |") == 2
    assert "- Not measured: llama.cpp: llama.cpp is not installed; make bench-peers." in page
    assert "- Not measured: masks: no vocabulary." in page


def no_vocabulary(size: int) -> None:
    raise NotInstalledError("no vocabulary")


def test_masks_are_timed_along_texts_of_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [bytes([byte]) for byte in range(256)] + [b"the", b" customer", b' "', b'": ', b"delivery", b" answer"]
    file = tmp_path / "words.tiktoken"
    file.write_bytes(b"".join(base64.b64encode(word) + b" %d\n" % i for i, word in enumerate(words)))
    monkeypatch.setattr(vocabularies, "KEPT", file)
    monkeypatch.setattr("sys.argv", ["masks", str(len(words) + 3)])
    masks.main()
    measured = json.loads(capsys.readouterr().out)
    assert measured["vocabulary"] == len(words) + 3
    assert [text["text"] for text in measured["texts"]] == [
        "JSON of a review",
        "JSON of a letter",
        "text that may call",
    ]
    assert all(len(text["later_s"]) == 9 * len(text["first_s"]) for text in measured["texts"])


def test_the_tables_set_json_and_text_that_may_call_beside_free_text() -> None:
    seconds = {"free": 0.6, "shaped": 0.3, "chat": 0.6, "tools": 0.625}
    answers = [{"kind": kind, "tokens": 61, "decode_s": decode} for kind, decode in seconds.items()]
    firsts = {"free_first_s": 0.001, "first_s": 0.131, "again_s": 0.001}
    sample = {"variant": "a", "vocabulary": 150_000, "answers": answers, **firsts, "another_s": 0.003}
    peer = {"variant": "p", "answers": answers[:2], **firsts}
    text = {"text": "JSON", "first_s": [0.0002] * 3, "later_s": [0.0001] * 9}
    content = {
        "samples": [sample, peer],
        "masks": [{"vocabulary": 150_000, "ready_s": 0.4, "texts": [text]}],
        "skipped": ["q: not installed"],
        "settings": {"models": {"a": {}}, "peers": ["p", "q"]},
    }
    made = sections(content)
    assert "| a | 100 | 200 | 2.00 | 61 | 0.960 |" in made["speed"]
    assert "| p | 100 | 200 | 2.00 | 61 |  |" in made["speed"]
    assert "| JSON | 150,000 | 200 µs | 100 µs | 2 % of a |" in made["masks"]
    assert "take 400 ms with 150,000 tokens." in made["masks"]
    assert "| a | 130.0 ms | 2.0 ms | 0.0 ms |" in made["first"]
    assert "| p | 130.0 ms |  | 0.0 ms |" in made["first"]
    assert made["skipped"] == "- Not measured: q: not installed.\n"


@pytest.mark.parametrize("option", ["--rounds", "--calls", "--prompt", "--tokens"])
def test_what_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shapes", option, "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
