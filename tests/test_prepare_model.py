"""The image build's model step: local directories, a server that speaks the hub's protocol, and what can be wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from tests.checkpoints import VOCAB, write_tokenizer
from tests.hub import COMMIT, Hub, serving_hub

ROOT = Path(__file__).parent.parent


def safetensors(shape: list[int], size: int) -> bytes:
    """A file of one tensor of zeros in half precision, `size` bytes by its header, without those bytes."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header


FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors([2, 3], 12) + bytes(12),
    "README.md": b"not served",
    "pytorch_model.bin": b"not served",
}
SERVED = {"config.json", "tokenizer.json", "model.safetensors"}
COPIED = ("--engine", "transformers")


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    with serving_hub(FILES) as served:
        yield served


def command(model: str | Path, out: Path, *options: str) -> list[str]:
    """The step as the Dockerfile runs it."""
    return [sys.executable, "-m", "image.prepare_model", str(model), str(out), *options]


def prepare(
    model: str | Path, out: Path, *options: str, hub: str = "http://127.0.0.1:9"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, out, *options),
        cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(out.parent / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def bloom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose attention, ALiBi's, the compiler does not know."""
    directory = tmp_path_factory.mktemp("checkpoints") / "bloom"
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)  # type: ignore[no-untyped-call]
    write_tokenizer(directory)
    return directory


def test_copies_what_is_served_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    result = prepare(checkpoint, tmp_path / "out", *COPIED)
    assert result.returncode == 0, result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == SERVED
    assert result.stdout == f"transformers serves {checkpoint}: ENGINE=transformers asks for it.\n"


@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_copies_of_an_artifact_what_its_manifest_names(engine: str, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    (artifact / "x86-64-v3").mkdir(parents=True)
    (artifact / "manifest.json").write_text('{"files": {"x86-64-v3/model.so": {}}}')
    (artifact / "x86-64-v3" / "model.so").write_bytes(b"code")
    (artifact / ".git").mkdir()
    (artifact / ".git" / "config").write_text("url = https://user:token@host")
    assert prepare(artifact, tmp_path / "out", "--engine", engine).returncode == 0
    copied = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert copied == {"manifest.json", "x86-64-v3/model.so"}
    assert (tmp_path / "out" / "x86-64-v3" / "model.so").read_bytes() == b"code"


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"files": {"weights.bin": {}}}', "has no weights.bin: it is no complete artifact"),
        ("{}", "is not the manifest of a compiled model"),
        ("[]", "is not the manifest of a compiled model"),
    ],
)
def test_an_artifact_that_is_not_whole_is_refused(manifest: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "manifest.json").write_text(manifest)
    result = prepare(tmp_path / "artifact", tmp_path / "out")
    assert (result.returncode, said in result.stderr) == (1, True), result.stderr


def test_an_artifact_is_nothing_for_transformers(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "manifest.json").write_text('{"files": {}}')
    result = prepare(tmp_path / "artifact", tmp_path / "out", *COPIED)
    assert (result.returncode, "is compiled already" in result.stderr) == (1, True)
    result = prepare(tmp_path / "artifact", tmp_path / "out", "--prompts", "prompts")
    assert (result.returncode, "prompts are read when it is" in result.stderr) == (1, True)


@pytest.mark.slow
def test_auto_compiles_and_says_so(llama_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "one.txt").write_text("0123456789" * 2)
    options = ("--quantize", "int4", "--context-length", "100", "--prompts", str(tmp_path / "prompts"))
    result = prepare(llama_directory, tmp_path / "out", *options)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [len(ids) for ids in manifest["prompts"]["tokens"]] == [16]
    assert (manifest["quantization"], manifest["context_length"]) == ("int4", 100)
    assert result.stdout.endswith(f"The compiled engine serves {llama_directory} (QUANTIZE=int4).\n")


def test_auto_falls_back_to_transformers_and_says_why(bloom: Path, tmp_path: Path) -> None:
    result = prepare(bloom, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (bloom / "model.safetensors").read_bytes()
    assert not (tmp_path / "out" / "manifest.json").exists()
    (said,) = result.stdout.splitlines()
    assert said.startswith(f"transformers serves {bloom}, which cannot be compiled: Bloom")
    assert "serve this checkpoint" not in said


def test_compiled_stops_with_the_reason(bloom: Path, tmp_path: Path) -> None:
    result = prepare(bloom, tmp_path / "out", "--engine", "compiled")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {bloom} cannot be compiled: Bloom")
    assert last.endswith("ENGINE=auto or transformers serves it.")


def test_a_context_beyond_the_models_stops_auto_too(llama_directory: Path, tmp_path: Path) -> None:
    result = prepare(llama_directory, tmp_path / "out", "--context-length", "9999")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: --context-length must lie between")


def test_a_compiler_killed_for_its_memory_is_told_from_other_failures(llama_directory: Path, tmp_path: Path) -> None:
    step = subprocess.Popen(
        command(llama_directory, tmp_path / "out"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{step.pid}/task/{step.pid}/children")
    while not (compiler := children.read_text().split()):
        time.sleep(0.01)
    os.kill(int(compiler[0]), signal.SIGKILL)
    assert "error: The compiler was killed, as the kernel does when memory runs out" in step.communicate()[1]
    assert step.returncode == 1


def test_downloads_a_pinned_commit_from_the_hub(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT, *COPIED, hub=hub[0])
    assert result.returncode == 0, result.stderr
    served = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()}
    assert served == {name: FILES[name] for name in SERVED}


def test_none_leaves_an_empty_directory(tmp_path: Path) -> None:
    assert prepare("none", tmp_path / "out").returncode == 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("models/nowhere", (), "There is no checkpoint 'models/nowhere' in the build context"),
        ("no such thing", (), "There is no checkpoint 'no such thing'"),
        ("team/demo", (), "pin team/demo to a commit"),
        ("team/demo", ("--revision", "main"), "MODEL_REVISION is 'main'; pin team/demo to a commit"),
        ("team/demo", ("--revision", "f" * 40), f"team/demo has no commit {'f' * 40}"),
        ("team/de--mo", ("--revision", COMMIT), "'team/de--mo' is no id of the hub's"),
        ("team/unknown", ("--revision", COMMIT), "no public model 'team/unknown'"),
        ("team/gated", ("--revision", COMMIT), "asks for its licence to be accepted"),
        ("models/demo", ("--engine", "fast"), "ENGINE is 'fast'; set it to one of auto, compiled, transformers"),
        (
            "models/demo",
            ("--quantize", "auto", "--quality-bound", "0.0"),
            "QUALITY_BOUND is '0.0'; set it to",
        ),
        ("models/demo", ("--quantize", "auto", "--quality-bound", "good"), "QUALITY_BOUND is 'good'"),
        ("models/demo", ("--quantize", "int3"), "QUANTIZE is 'int3'; set it to one of int8, int4, none, auto"),
        ("models/demo", ("--context-length", "long"), "CONTEXT_LENGTH is 'long'; set it to a number of tokens"),
        ("models/demo", ("--prompts", "prompts/nowhere"), "There is no prompt 'prompts/nowhere' in the build context"),
        ("models/demo", ("--prompts", "prompts", *COPIED), "ENGINE=transformers compiles no model that could read it"),
        ("none", ("--prompts", "prompts"), "MODEL=none compiles no model that could read it"),
    ],
)
def test_says_what_is_wrong_in_one_sentence(
    model: str, options: tuple[str, ...], said: str, hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    result = prepare(model, tmp_path / "out", *options, hub=hub[0])
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_says_that_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT)
    assert result.returncode == 1
    assert "The hub could not be reached for team/demo" in result.stderr
    assert "Traceback" not in result.stderr


def refusal(checkpoint: Path, tmp_path: Path) -> str:
    """The one line with which the check of an incomplete checkpoint ends, before anything is installed."""
    result = prepare(checkpoint, tmp_path / "out", "--check")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_names_the_file_that_is_missing(name: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / name).unlink()
    said = "has no " + ("*.safetensors" if name == "model.safetensors" else name)
    assert said in refusal(checkpoint, tmp_path)


def test_weights_in_several_files_need_their_index(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    assert "has no model.safetensors, nor model.safetensors.index.json" in refusal(checkpoint, tmp_path)


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_a_chat_template_that_cannot_be_parsed_is_refused(engine: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{% for m in messages %}")
    result = prepare(checkpoint, tmp_path / "out", "--engine", engine)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: The chat template of {checkpoint} cannot be parsed (Unexpected end of template")


@pytest.mark.parametrize("out", ["full", "file", "checkpoint"])
def test_what_is_there_already_is_never_written_over(out: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "manifest.json").touch()
    (tmp_path / "file").touch()
    result = prepare(checkpoint, tmp_path / out, *COPIED)
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {tmp_path / out} is no empty directory; name another for the model.\n",
    )


def test_names_the_part_of_the_weights_that_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "has no model-00002-of-00002.safetensors" in refusal(checkpoint, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", FILES["model.safetensors"][:-1], "bytes where its header says"),
        ("model.safetensors", b"not weights at all", "is not a safetensors file"),
        ("model.safetensors", b"", "is not a safetensors file"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (
            "model.safetensors",
            b"\x25" + bytes(7) + b'{"w": {"data_offsets": [0, 0]      }}',
            "is not a safetensors file",
        ),
        ("config.json", b'{"model_type": "lla', "is not JSON"),
        ("model.safetensors.index.json", b"[]", "has no weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": null}', "has no weight_map"),
    ],
)
def test_names_the_file_that_is_not_whole(
    name: str, content: bytes, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / name).write_bytes(content)
    line = refusal(checkpoint, tmp_path)
    assert name in line
    assert said in line


def test_says_that_the_disk_is_too_small_before_it_downloads(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    hub[1].declared_size = 10**15
    result = prepare("team/demo", tmp_path / "out", "--revision", COMMIT, hub=hub[0])
    assert result.returncode == 1
    assert "The model needs 3000000.0 GB and the build's disk has" in result.stderr


def test_says_that_memory_is_too_small_before_it_compiles(checkpoint: Path, tmp_path: Path) -> None:
    shape, size = [1_000_000, 500_000], 10**12
    start = safetensors(shape, size)
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)  # takes no space
    result = prepare(checkpoint, tmp_path / "out")
    assert result.returncode == 1
    assert "Compiling 500.0 billion parameters needs over 2000.0 GB of memory and the build has" in result.stderr
