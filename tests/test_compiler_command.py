"""`python -m compiler`: prompts that it reads; of what it cannot compile one sentence, a telling exit status."""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BloomConfig

from compiler import __main__ as command
from compiler import build, check, codegen, package
from compiler.calibration_text import CalibrationText
from compiler.errors import CompileError
from engines import compiled_engine
from engines.cpu_levels import levels_here
from engines.prompts import HEADER_BYTES, file_name
from tests.baking import LEVEL, bake
from tests.checkpoints import VOCAB, write_tokenizer
from tests.running_server import PATIENCE

REFUSED, UNSUPPORTED, USAGE = 1, 3, 2
BUILT = build.Built(1.0, None)


@pytest.fixture
def checkpoint(llama_directory: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(llama_directory, tmp_path / "broken"))


@pytest.fixture
def compile_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> "Compile":
    return Compile(tmp_path, monkeypatch, capfd)


class Compile:
    """The command, run in this process, which has imported torch already."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.out = tmp_path / "artifact"
        self.printed = ""
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, checkpoint: Path, *options: str) -> tuple[int, str]:
        """Exit status, and the last line on standard error."""
        arguments = ["compiler", str(checkpoint), str(self.out), "--quantize", "none", *options]
        self._monkeypatch.setattr(sys, "argv", arguments)
        try:
            status = command.main()
        except SystemExit as exit_:  # argparse's
            status = int(exit_.code or 0)
        self.printed, said = self._capfd.readouterr()
        assert "Traceback" not in said
        return status, said.rstrip("\n").rpartition("\n")[2]


def test_an_architecture_that_cannot_be_compiled_has_a_status_of_its_own(compile_: Compile, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4)  # ALiBi, not plain attention
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "bloom")  # type: ignore[no-untyped-call]
    write_tokenizer(tmp_path / "bloom")
    status, said = compile_(tmp_path / "bloom")
    assert status == UNSUPPORTED
    assert said.startswith("compiler: ")
    assert said.endswith("; serve this checkpoint with the transformers engine instead.")
    assert not compile_.out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_check_leaves_nothing_behind(
    compile_: Compile, llama_directory: Path, llama_artifact: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def compare(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(PATIENCE)  # until the signal is here

    before = [signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, signal.default_int_handler)]
    monkeypatch.setattr(
        build, "build", lambda checkpoint, out, *_: shutil.copytree(llama_artifact, out, dirs_exist_ok=True) and BUILT
    )
    monkeypatch.setattr(check, "compare", compare)
    try:
        assert compile_(llama_directory) == (130, "compiler: interrupted.")
    finally:
        for each, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(each, handler)
    assert not compile_.out.exists()


def test_logits_that_depend_on_the_number_of_threads_are_refused(
    compile_: Compile, llama_directory: Path, llama_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = check._measure

    def torn(kind: str, directory: Path, threads: int, request: Any) -> Any:
        found = measure(kind, directory, threads, request)
        return {name: value + (name == "l0" and threads == 1) for name, value in found.items()}

    monkeypatch.setattr(
        build, "build", lambda checkpoint, out, *_: shutil.copytree(llama_artifact, out, dirs_exist_ok=True) and BUILT
    )
    monkeypatch.setattr(check, "_measure", torn)
    status, said = compile_(llama_directory)
    assert (status, "depend on the number of threads" in said) == (UNSUPPORTED, True)


def test_weights_that_are_not_finite_are_named(compile_: Compile, checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    status, said = compile_(checkpoint)
    assert (status, "model.norm.weight of " in said, "are not finite" in said) == (REFUSED, True, True)


def test_a_chat_template_that_cannot_be_parsed_is_refused(compile_: Compile, checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{% for m in messages %}")
    status, said = compile_(checkpoint)
    assert (status, "cannot be parsed (Unexpected end of template" in said) == (REFUSED, True)


def test_weights_that_are_quantised_already_are_refused(compile_: Compile, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    status, said = compile_(checkpoint)
    assert status == REFUSED
    assert "is quantised already (gptq); compile the original checkpoint" in said


def test_a_text_without_a_tokenizer_is_refused_before_the_long_work(
    compile_: Compile, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (tmp_path / "text.txt").write_text("some words")
    status, said = compile_(checkpoint, "--text", str(tmp_path / "text.txt"))
    assert (status, "tokenizer.json is missing, and a text is compared by its tokens" in said) == (REFUSED, True)
    assert not compile_.out.exists()


def test_a_text_is_compared_whole_whatever_the_tokenizer_cuts(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    whole = len(tokenizer.encode("fox " * 100).ids)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=500)
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    assert len(check.held_out(checkpoint, "fox " * 100)) == whole


def test_a_model_that_does_not_agree_with_transformers_is_left_to_transformers(
    compile_: Compile, llama_directory: Path, llama_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        build, "build", lambda checkpoint, out, *_: shutil.copytree(llama_artifact, out, dirs_exist_ok=True) and BUILT
    )
    monkeypatch.setattr(check, "acceptable", lambda comparison, quantize: False)
    status, said = compile_(llama_directory)
    assert status == UNSUPPORTED
    assert said.startswith("compiler: The compiled model does not agree with transformers; serve")
    assert not compile_.out.exists(), "and the next attempt finds nothing in its way"


@pytest.mark.parametrize("options", [(), ("--quantize", "auto", "--quality-bound", "1")], ids=["none", "auto"])
@pytest.mark.parametrize("error", [CompileError("Memory ran out."), KeyboardInterrupt()], ids=["failed", "interrupted"])
def test_an_artifact_that_is_there_outlives_a_check_that_does_not_end_well(
    compile_: Compile,
    llama_directory: Path,
    llama_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    error: BaseException,
) -> None:
    def built(checkpoint: Path, out: Path, *_: object) -> build.Built:
        with package.staging(out) as staged:
            shutil.copytree(llama_artifact, staged, dirs_exist_ok=True)
        return BUILT if not options else build.Built(1.0, CalibrationText(ids, ids))

    def compare(*_: object, **__: object) -> None:
        raise error

    ids = torch.zeros(1, 2, dtype=torch.int64)
    shutil.copytree(llama_artifact, compile_.out)
    (compile_.out / "mine").touch()
    monkeypatch.setattr(build, "build", built)
    monkeypatch.setattr(check, "compare", compare)
    assert compile_(llama_directory, *options)[0] == (130 if isinstance(error, KeyboardInterrupt) else REFUSED)
    assert (compile_.out / "mine").exists()
    assert list(compile_.out.parent.iterdir()) == [compile_.out]


@pytest.mark.parametrize(("correlation", "last"), [(0.31, "int4 moved the logits far"), (0.97, "| same most likely")])
def test_rounding_that_moved_the_logits_far_is_said(
    compile_: Compile,
    llama_directory: Path,
    llama_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    correlation: float,
    last: str,
) -> None:
    compare = check.compare
    monkeypatch.setattr(
        build, "build", lambda checkpoint, out, *_: shutil.copytree(llama_artifact, out, dirs_exist_ok=True) and BUILT
    )
    monkeypatch.setattr(check, "compare", lambda *of: replace(compare(*of), correlation=correlation))
    assert compile_(llama_directory, "--quantize", "int4")[0] == 0
    assert compile_.printed.splitlines()[-1].startswith(last)


def test_a_prompt_is_read_and_what_finds_it_is_printed(compile_: Compile, checkpoint: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "instructions.txt"
    prompt.write_text("0123456789" * 2)
    status, _ = compile_(checkpoint, "--isa", LEVEL, "--prompt", str(prompt))
    assert status == 0
    assert compile_.printed.splitlines()[-1] == (
        f"{prompt}: 16 of its 20 tokens are stored, in pages of 16, for requests that begin with these 16 characters, "
        f"from '0123456789012345' to '0123456789012345'. A sample request of 33 tokens found them."
    )
    engine = compiled_engine.load(compile_.out, threads=1, verify=True)
    assert [len(ids) for ids, _ in engine.prefixes] == [16]


def test_a_prompt_that_leaves_no_room_stops_before_the_long_work(
    compile_: Compile, checkpoint: Path, tmp_path: Path
) -> None:
    prompt = tmp_path / "instructions.txt"
    prompt.write_text("0123456789" * 2)
    status, said = compile_(checkpoint, "--context-length", "80", "--prompt", str(prompt))
    assert status == REFUSED
    assert said == f"compiler: {prompt} has 20 tokens, and of the context of 80 at least 64 must be left."
    assert not compile_.out.exists()


def test_a_prompt_that_is_not_there(compile_: Compile, checkpoint: Path, tmp_path: Path) -> None:
    status, said = compile_(checkpoint, "--prompt", str(tmp_path / "nowhere.txt"))
    assert status == REFUSED
    assert said == f"compiler: No such file or directory ({tmp_path / 'nowhere.txt'})."


def test_pages_that_change_an_answer_are_not_served(
    compile_: Compile, llama_directory: Path, llama_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = tmp_path / "instructions.txt"
    prompt.write_text("0123456789" * 2)

    def build_wrongly(checkpoint: Path, out: Path, *_: object) -> build.Built:
        pages = bake(llama_artifact, out, prompt) / file_name(LEVEL)
        pages.write_bytes(pages.read_bytes()[:HEADER_BYTES].ljust(pages.stat().st_size, b"\0"))
        return BUILT

    monkeypatch.setattr(build, "build", build_wrongly)
    status, said = compile_(llama_directory, "--prompt", str(prompt))
    assert status == REFUSED
    assert said == f"compiler: The pages of {prompt} change the answer to a request."
    assert not compile_.out.exists(), "and the next attempt finds nothing in its way"


def test_a_directory_that_is_not_there(compile_: Compile, tmp_path: Path) -> None:
    status, said = compile_(tmp_path / "nowhere")
    assert status == REFUSED
    assert said.endswith("nowhere/config.json is missing; give the directory of a Hugging Face checkpoint.")


def test_weights_that_are_truncated(compile_: Compile, checkpoint: Path) -> None:
    os.truncate(checkpoint / "model.safetensors", 5000)
    status, said = compile_(checkpoint)
    assert status == REFUSED
    assert "model.safetensors holds 5000 bytes where its header says" in said


def test_weights_that_are_pickled(compile_: Compile, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    status, said = compile_(checkpoint)
    assert status == REFUSED
    assert "pytorch_model.bin is pickled, and reading it would run its author's code" in said


def test_a_tensor_that_is_missing(compile_: Compile, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    (checkpoint / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    status, said = compile_(checkpoint)
    assert status == REFUSED
    assert "has no weights for model.layers.2" in said


def test_code_of_the_checkpoint_is_never_run(compile_: Compile, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes())
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (checkpoint / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (checkpoint / "own.py").write_text(f"open({str(checkpoint / 'ran')!r}, 'w')")
    status, said = compile_(checkpoint)
    assert status == REFUSED
    assert "needs Python code of its own, which is never run" in said
    assert not (checkpoint / "ran").exists()


def test_a_precision_it_does_not_know(compile_: Compile, llama_directory: Path) -> None:
    status, said = compile_(llama_directory, "--quantize", "int3")
    assert status == USAGE
    assert "invalid choice: 'int3'" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--quantize", "auto"), "--quantize auto and --quality-bound NATS go together"),
        (("--quantize", "int4", "--quality-bound", "0.1"), "--quantize auto and --quality-bound NATS go together"),
        (("--quantize", "auto", "--quality-bound", "0"), "0 is not a number of nats above 0"),
        (("--quantize", "auto", "--quality-bound", "nan"), "nan is not a number of nats above 0"),
        (("--quantize", "auto", "--quality-bound", "good"), "good is not a number of nats above 0"),
        (("--quantize", "auto", "--quality-bound", "1", "--no-calibration"), "measures on the text that --no-cal"),
    ],
)
def test_a_bound_of_quality_that_cannot_be_meant(
    compile_: Compile, llama_directory: Path, options: tuple[str, ...], reason: str
) -> None:
    status, said = compile_(llama_directory, *options)
    assert status == USAGE
    assert reason in said


@pytest.mark.parametrize(
    ("bound", "chosen", "why"),
    [
        ("20", "int4", r"int4: int4 is \d+\.\d{4} nats a token from float32 on .*, within the bound of 20\."),
        pytest.param(
            "1e-09",
            "int8",
            r"int8: int4 is .*, beyond the bound of 1e-09; int8 is \d+\.\d{4}, which is beyond it too\.",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_auto_takes_four_bits_where_they_are_within_the_bound(
    compile_: Compile, llama_directory: Path, bound: str, chosen: str, why: str
) -> None:
    status, _ = compile_(llama_directory, "--quantize", "auto", "--quality-bound", bound, "--isa", LEVEL)
    assert status == 0
    assert re.search(f"^{why}$", compile_.printed, re.MULTILINE)
    assert json.loads((compile_.out / "manifest.json").read_bytes())["quantization"] == chosen


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"\xe9t\xe9", "is not UTF-8 (byte 0)."),
        (b" \n", "holds no text to compare on."),
    ],
)
def test_a_text_that_is_none_is_refused_before_anything_is_compiled(
    compile_: Compile, llama_directory: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    status, last = compile_(llama_directory, "--text", str(text))
    assert (status, said in last, str(text) in last) == (REFUSED, True, True)
    assert not compile_.out.exists()


@pytest.mark.slow
def test_a_model_that_writes_one_token_for_ever_is_rounded_without_calibration(
    compile_: Compile, checkpoint: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()
        model.get_parameter("model.embed_tokens.weight").fill_(1)
        model.get_parameter("lm_head.weight")[7] = 10
    model.save_pretrained(checkpoint)
    status, _ = compile_(checkpoint, "--quantize", "int4", "--isa", LEVEL)
    assert status == 0
    said = "The weights are rounded without calibration: the model writes no more than 1 different tokens."
    assert said in compile_.printed


def test_a_context_longer_than_the_model_was_made_for(compile_: Compile, llama_directory: Path) -> None:
    status, said = compile_(llama_directory, "--context-length", "100000")
    assert status == REFUSED
    assert "--context-length must lie between 1 and the checkpoint's 640, not 100000." in said


def test_no_c_compiler(compile_: Compile, llama_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    status, said = compile_(llama_directory)
    assert status == REFUSED
    assert said == "compiler: g++ is not installed, and it compiles the model's code."


def test_too_little_memory(compile_: Compile, llama_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1500")
    status, said = compile_(llama_directory)
    assert status == REFUSED
    assert re.search(r" to none needs about 2.0 GB of memory, and (0|1)\.\d GB are free\.$", said)


def test_too_little_disk(compile_: Compile, llama_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(llama_directory)._replace(free=40_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    status, said = compile_(llama_directory)
    assert status == REFUSED
    assert f"needs about 0.1 GB on the disk of {compile_.out.parent}, and 0.0 GB are free." in said


def test_a_directory_that_cannot_be_written(compile_: Compile, llama_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    compile_.out = tmp_path / "file" / "artifact"
    status, said = compile_(llama_directory)
    assert status == REFUSED
    assert said.startswith("compiler: ")


def test_code_that_the_c_compiler_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codegen._runtime.cache_clear()
    monkeypatch.setattr(codegen, "FLAGS", ["-no-such-flag"])
    with pytest.raises(CompileError, match=r"^g\+\+ failed: .*no-such-flag.*$"):
        codegen.build_runtime(levels_here()[-1], tmp_path)
