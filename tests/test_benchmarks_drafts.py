"""The benchmark of drafts: its texts, one real run on a tiny artifact, and what the table makes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks import checkpoints
from benchmarks.__main__ import main
from benchmarks.drafts import copying
from benchmarks.drafts.report import sections
from benchmarks.drafts.texts import CHANGES, CODE, FREE, TASKS, cut


def test_a_run_measures_every_task_with_drafts_and_without(
    llama_directory: Path, compiled: Callable[..., Path], tmp_path: Path
) -> None:
    model = f"tiny={compiled(llama_directory, 'int8')}"
    options = ["--model", model, "--rounds", "1", "--calls", "1", "--beside", "2", "--free", "20"]
    assert main(["drafts", *options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "drafts.json").read_text())
    assert content["complete"]
    tried = {(s["task"], s["sequences"]): s for s in content["samples"] if s["drafts"]}
    plain = {(s["task"], s["sequences"]): s for s in content["samples"] if not s["drafts"]}
    assert tried.keys() == plain.keys() == {(task, count) for task in TASKS for count in (1, 2)} | {(FREE, 1)}
    for name, task in TASKS.items():
        share = tried[name, 1]["accepted"] / len(cut(task.answer))
        assert share > 0.1 if task.copies else share < 0.05, name
        assert (plain[name, 1]["accepted"], plain[name, 1]["rejected"]) == (0, 0)
    assert (tmp_path / "drafts.md").read_text().count("| tiny |") == len(tried)


def test_the_texts_are_cut_without_loss_and_every_change_of_the_edit_finds_its_place() -> None:
    for task in TASKS.values():
        assert "".join(cut(task.prompt)) == task.prompt
        assert "".join(cut(task.answer)) == task.answer
    assert all(CODE.count(old) == 1 for old in CHANGES)


def test_the_table_sets_answers_with_drafts_beside_those_without() -> None:
    def sample(round_: int, drafts: bool, seconds: float, accepted: int) -> dict[str, Any]:
        counts = {"accepted": accepted, "rejected": accepted // 10, "tokens": 100, "decode_s": seconds}
        return {"variant": "a", "task": "edit", "sequences": 1, "round": round_, "call": 0, "drafts": drafts, **counts}

    samples = [
        sample(i, drafts, 1.0 if drafts else 2.0 + i / 10, 60 * drafts) for i in range(3) for drafts in (False, True)
    ]
    content = {"samples": samples, "skipped": [], "settings": {"models": {"a": {}}, "answers": ["edit"]}}
    made = sections(content)["times"]
    assert "| a | edit | 1 | 100 | 48 | 100 | **2.10** (2.00 to 2.20) | 60 % | 60 / 6 |" in made


TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 12_288,
    "tokens": 12_288,
    "max_position_embeddings": 1024,
    "rope_theta": 10_000.0,
}


def test_the_copying_checkpoint_gives_the_answers_of_the_tasks_by_transformers_own_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(copying, "MADE", tmp_path)
    monkeypatch.setitem(checkpoints.SHAPES, "tiny", TINY)
    texts = copying.written(TASKS)
    model: Any = AutoModelForCausalLM.from_pretrained(copying.copying_checkpoint("tiny", texts), dtype=torch.float32)
    for name, (prompt, answer) in texts.items():
        said = model.generate(torch.tensor([prompt]), max_new_tokens=len(answer), do_sample=False)
        assert said[0, len(prompt) :].tolist() == answer, name


def test_a_prompt_has_the_ids_of_what_its_answer_copies() -> None:
    for name, (prompt, answer) in copying.written(TASKS).items():
        assert len(set(answer)) == len(answer)
        share = len(set(prompt) & set(answer)) / len(answer)
        assert share > 0.25 if TASKS[name].copies else share < 0.1, name


def test_peers_stand_beside_each_other_and_a_wrong_answer_is_noted() -> None:
    def sample(engine: str, drafts: bool, seconds: float, right: bool = True) -> dict[str, Any]:
        common = {"task": "edit", "round": 0, "call": 0, "tokens": 100}
        return {**common, "engine": engine, "drafts": drafts, "decode_s": seconds, "right": right}

    peers = [sample("a", True, 0.5), sample("a", False, 2.0), sample("b", True, 4.0), sample("b", False, 2.0, False)]
    content = {"samples": [], "peers": peers, "skipped": ["c: gone"], "settings": {"models": {}, "answers": ["edit"]}}
    made = sections(content)
    assert "| edit | 200 (**4.00**) | 25 (**0.50**) |" in made["peers"]
    assert made["notes"] == "- Not measured: c: gone.\n- b gave another answer to: edit.\n"


@pytest.mark.parametrize("option", ["--rounds", "--calls", "--beside", "--free"])
def test_what_cannot_be_meant_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drafts", option, "0"]) == 2
    assert "at least one is needed" in capsys.readouterr().err
