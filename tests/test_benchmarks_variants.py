"""What is measured side by side: which models can be named, and in which order they take turns."""

from pathlib import Path

import pytest

from benchmarks import checkpoints
from benchmarks.errors import InputError
from benchmarks.variants import interleaved, parse_variants


def test_every_round_holds_every_contender_once_in_changing_order() -> None:
    rounds = list(interleaved(["a", "b", "c"], 20))
    assert [i for i, _ in rounds] == [i for i in range(20) for _ in range(3)]
    orders = {tuple(item for j, item in rounds if j == i) for i in range(20)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 1


@pytest.mark.parametrize("text", ["nothing", "=x", "name=", "a=/nowhere", "a=SmolLM2-9T"])
def test_a_model_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_variants([text])


def test_a_variant_knows_its_engine_and_its_environment(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    (variant,) = parse_variants([f"mine={tmp_path},THREADS=1"])
    assert variant.engine == "compiled"
    assert variant.environment == {"THREADS": "1"}
    with pytest.raises(InputError, match="must differ"):
        parse_variants([f"mine={tmp_path}", f"mine={tmp_path}"])


def test_an_artifact_of_another_compiler_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    monkeypatch.setattr(checkpoints, "COMPILED", tmp_path)
    compiled = tmp_path / checkpoints.compiler_digest() / "model-int8"
    compiled.mkdir(parents=True)
    (compiled / "manifest.json").write_text("{}")
    assert checkpoints.model_directory(f"{checkpoint}:int8") == compiled
    monkeypatch.setattr(checkpoints, "compiler_digest", lambda: "another")
    with pytest.raises(InputError, match="cannot be compiled"):
        checkpoints.model_directory(f"{checkpoint}:int8")
