"""Loads that fail: one sentence that names the file and the remedy, and nothing half-ready."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_loader
from engines.errors import LoadError
from engines.machine import available_memory
from settings import Settings
from tests.checkpoints import write_tokenizer


@pytest.fixture
def checkpoint(llama_directory: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(llama_directory, tmp_path / "broken"))


def failure(directory: Path, **settings: str) -> str:
    with pytest.raises(LoadError) as caught:
        model_loader.load_model(Settings(model_dir=str(directory), **settings))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_missing_directory(tmp_path: Path) -> None:
    assert failure(tmp_path / "no") == (
        f"{tmp_path / 'no'} is not a directory; set MODEL_DIR to a checkpoint or a compiled artifact."
    )


def test_truncated_weights(checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(size - 1000)
    assert failure(checkpoint) == (
        f"{weights} holds {size - 1000} bytes where its header says {size}; copy the checkpoint again."
    )


def test_weights_that_are_something_else(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "model.safetensors is not a safetensors file; copy" in failure(checkpoint)
    header = b'{"a": {"shape": [0], "data_offsets": [0, 0]}}'
    (checkpoint / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "model.safetensors is not a safetensors file; copy" in failure(checkpoint)


def test_no_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "holds no weights (model.safetensors); copy" in failure(checkpoint)


def test_pickled_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "pytorch_model.bin is pickled, and reading it would run its author's code; save" in failure(checkpoint)


def test_code_of_the_checkpoint_is_never_run(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (checkpoint / "own.py").write_text(f"open({str(checkpoint / 'ran')!r}, 'w')")
    assert "needs Python code of its own, which is never run; use" in failure(checkpoint)
    assert not (checkpoint / "ran").exists()


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing; copy" in failure(checkpoint)


def test_weights_that_miss_a_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "has no weights for model.norm.weight" in failure(checkpoint)


def test_weights_of_another_shape(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))
    assert "config.json" in failure(checkpoint)


def test_weights_that_are_not_numbers(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert "logits that are not finite; copy" in failure(checkpoint)


def test_a_configuration_of_no_known_model(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"model_type": "no-such-model"}')
    assert f"{checkpoint} cannot be loaded as a causal language model" in failure(checkpoint)


def test_a_missing_configuration(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    assert "config.json is missing; MODEL_DIR must be" in failure(checkpoint)


def test_a_tokenizer_that_does_not_fit(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    size, first = len(tokenizer["model"]["vocab"]), tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [{**first, "id": i, "content": f"<extra-{i}>"} for i in range(size, 321)]
    path.write_text(json.dumps(tokenizer))
    assert failure(checkpoint) == (
        f"{path} has ids up to 320 and the model only 320 embeddings; use the tokenizer the model was trained with."
    )


def test_a_chat_template_that_is_not_text(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_bytes(b"{{ messages }} \xff\xfe")
    assert "chat_template.jinja cannot be read as UTF-8" in failure(checkpoint)


@pytest.mark.parametrize("eos", ["</s>", -1, 320, 2**70, 0.5, True, [0, 320], {"id": 0}])
def test_an_end_of_sequence_that_is_no_token(checkpoint: Path, eos: object) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    assert "ends a text, and the model's tokens go from 0 to 319; correct its eos_token_id" in failure(checkpoint)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", -1, "'temperature' must be a number between 0 and 2, not -1."),
        ("temperature", "warm", "'temperature' must be a number between 0 and 2, not 'warm'."),
        ("top_p", 2, "'top_p' must be a number between 0 and 1, not 2."),
        ("top_k", 0.5, "'top_k' must be an integer of at least -1, not 0.5."),
        ("repetition_penalty", 0, "'repetition_penalty' must be a number between 0.01 and 10, not 0."),
    ],
)
def test_sampling_defaults_that_no_request_could_ask_for(checkpoint: Path, name: str, value: object, said: str) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"do_sample": True, name: value}))
    assert failure(checkpoint).endswith(f"generation_config.json cannot be followed: {said}")


def test_too_little_memory(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    assert "raise the memory size, set DTYPE to a smaller type, or use a smaller model" in failure(checkpoint)


def test_no_gpu_where_one_is_asked_for(checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert failure(checkpoint, device="cuda").startswith("DEVICE is 'cuda' but torch finds no GPU")


def test_a_failed_load_leaves_nothing_behind(
    tmp_path: Path, llama_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loader, "_model", None)
    with pytest.raises(LoadError):
        model_loader.get_model(Settings(model_dir=str(tmp_path / "no")))
    assert model_loader.get_model(Settings(model_dir=str(llama_directory))).name == "tiny-llama"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DTYPE", "int3", "DTYPE is 'int3'; set it to one of auto, float32, bfloat16, float16."),
        (
            "STREAMING_DOORS",
            "rest-api, http-api",
            "STREAMING_DOORS has 'http-api'; set it to any of function-url, rest-api, separated by commas.",
        ),
        ("THREADS", "-1", "THREADS is '-1'; set it to a whole number of at least 0."),
        ("PORT", "65536", "PORT is '65536'; set it to a whole number from 0 to 65535."),
        ("PREFIX_CACHE", "101", "PREFIX_CACHE is '101'; set it to a whole number from 0 to 100."),
        ("PREFIX_CACHE", "-1", "PREFIX_CACHE is '-1'; set it to a whole number from 0 to 100."),
        ("PREFIX_CACHE_SHARED", "yes", "PREFIX_CACHE_SHARED is 'yes'; set it to one of false, true."),
        ("MAX_BODY_BYTES", "0", "MAX_BODY_BYTES is '0'; set it to a whole number of at least 1."),
        ("GATEWAY_TIMEOUT", "soon", "GATEWAY_TIMEOUT is 'soon'; set it to a positive number of seconds."),
        ("LOG_PROMPTS", "yes", "LOG_PROMPTS is 'yes'; set it to one of false, true."),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value) == message


def test_available_memory_is_a_number_of_bytes_this_machine_could_have() -> None:
    assert 0 < available_memory({}) < 2**50


def test_a_smaller_tokenizer_than_the_model_is_fine(checkpoint: Path) -> None:
    write_tokenizer(checkpoint, vocab_size=290)
    assert model_loader.load_model(Settings(model_dir=str(checkpoint))).tokenizer.token_id("<eos>") == 0
