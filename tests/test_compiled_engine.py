"""The compiled engine: equal to transformers, free of torch at start, and refusing whatever it cannot serve."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from compiler import package
from compiler.errors import CompileError
from engines import artifact, compiled_engine, cpu_levels
from engines.base import PAGE_TOKENS, Logits, Step, TokenIds
from engines.compiled_engine import (
    LEAST_TOKENS,
    RESERVED_BYTES,
    RESERVED_OF_WEIGHTS,
    CompiledCache,
    CompiledEngine,
)
from engines.errors import LoadError
from tests.checkpoints import CONTEXT, VOCAB

ROOT = Path(__file__).parents[1]
LEVELS = [level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags()]


@pytest.fixture(scope="session", params=LEVELS)
def engine(request: pytest.FixtureRequest, llama_artifact: Path) -> CompiledEngine:
    return compiled_engine.load(llama_artifact, threads=2, level=request.param)


@pytest.fixture(scope="session")
def oracle(llama_directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama_directory, dtype=torch.float32)  # in evaluation mode


@pytest.fixture
def broken(llama_artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to damage."""
    return Path(shutil.copytree(llama_artifact, tmp_path / "artifact"))


def random_ids(length: int, seed: int = 0) -> TokenIds:
    return np.random.default_rng(seed).integers(1, VOCAB, length)  # 0 is padding to transformers' generate


def all_logits(oracle: Any, ids: TokenIds) -> Logits:
    with torch.inference_mode():
        logits: Logits = oracle(torch.from_numpy(ids)[None]).logits[0].numpy()
    return logits


def run(engine: CompiledEngine, ids: TokenIds, cache: CompiledCache, last: int = 1) -> Logits:
    return engine.forward([Step(ids, cache, last)])[0]


def greedy(engine: CompiledEngine, prompt: TokenIds, tokens: int) -> list[int]:
    cache = engine.new_cache()
    for begin in range(0, len(prompt), engine.max_rows):
        logits = run(engine, prompt[begin : begin + engine.max_rows], cache)
    found = [int(logits[0].argmax())]
    while len(found) < tokens:
        found.append(int(run(engine, np.array(found[-1:]), cache)[0].argmax()))
    return found


def test_greedy_text_equals_transformers_over_fifty_prompts(engine: CompiledEngine, oracle: Any) -> None:
    for length in (*range(1, 41), 60, 63, 64, 65, 128, 200, 300, 511, 513, 600):
        prompt = random_ids(length, seed=length)
        expected = oracle.generate(
            torch.from_numpy(prompt)[None], do_sample=False, max_new_tokens=12, min_new_tokens=12, pad_token_id=0,
            eos_token_id=None,
        )[0, length:].tolist()  # fmt: skip
        assert greedy(engine, prompt, 12) == expected


def test_logits_equal_transformers_however_the_prompt_is_cut(engine: CompiledEngine, oracle: Any) -> None:
    random = np.random.default_rng(1)
    for trial in range(25):
        ids = random_ids(int(random.integers(2, CONTEXT + 1)), seed=trial)
        expected = all_logits(oracle, ids)
        cache = engine.new_cache()
        at = 0
        while at < len(ids):
            count = min(int(random.choice([1, 2, 3, 17, 100, engine.max_rows])), len(ids) - at)
            last = int(random.integers(1, count + 1))
            logits = run(engine, ids[at : at + count], cache, last)
            at += count
            assert logits.shape == (last, VOCAB)
            assert np.abs(logits - expected[at - last : at]).max() <= 1e-4 * np.abs(expected).max()
        assert cache.length == len(ids)


def test_the_whole_context_can_be_used(engine: CompiledEngine, oracle: Any) -> None:
    ids = random_ids(CONTEXT)
    cache = engine.new_cache()
    run(engine, ids[:500], cache)
    run(engine, ids[500:-1], cache)
    logits = run(engine, ids[-1:], cache)
    expected = all_logits(oracle, ids)
    assert np.abs(logits[0] - expected[-1]).max() <= 1e-4 * np.abs(expected).max()
    with pytest.raises(ValueError, match="do not fit the context"):
        run(engine, ids[:1], cache)


def test_logits_are_the_same_for_any_number_of_threads(engine: CompiledEngine, llama_artifact: Path) -> None:
    ids = random_ids(400, seed=7)

    def logits(threads: int) -> Logits:
        own = compiled_engine.load(llama_artifact, threads=threads, level=engine.level)
        cache = own.new_cache()
        rows = [run(own, ids[:200], cache, last=200)]
        return np.concatenate([*rows, *(run(own, ids[i : i + 1], cache) for i in range(200, 400))])

    alone = logits(1)
    for threads in (2, 7):  # the second more than there are cores
        np.testing.assert_array_equal(logits(threads), alone)


def test_requests_in_several_threads_do_not_disturb_each_other(engine: CompiledEngine) -> None:
    expected = [greedy(engine, random_ids(50 + i, seed=i), 20) for i in range(4)]
    found: list[list[int] | None] = [None] * 4

    def run(i: int) -> None:
        found[i] = greedy(engine, random_ids(50 + i, seed=i), 20)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.parametrize(
    ("ids", "last", "message"),
    [
        (np.array([VOCAB]), 1, "token ids lie between"),
        (np.array([-1]), 1, "token ids lie between"),
        (np.array([2**62]), 1, "token ids lie between"),
        (np.array([], np.int64), 1, "one row of int64"),
        (np.zeros(513, np.int64), 1, "one pass takes up to"),
        (np.zeros(3, np.int64), -1, "logits can be had"),
        (np.zeros(3, np.int64), 4, "logits can be had"),
        (np.zeros((1, 3), np.int64), 1, "one row of int64"),
        (np.zeros(3, np.int32), 1, "one row of int64"),
        (np.zeros(3), 1, "one row of int64"),
    ],
)
def test_what_the_graph_cannot_take_is_refused_before_native_code(
    engine: CompiledEngine, ids: Any, last: int, message: str
) -> None:
    cache = engine.new_cache()
    with pytest.raises(ValueError, match=message):
        run(engine, ids, cache, last)
    assert run(engine, np.zeros(33, np.int64), cache).shape == (1, VOCAB)  # and the cache is as before


def test_memory_that_holds_no_conversation_is_said_when_the_model_is_loaded(
    llama_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_page = compiled_engine.load(llama_artifact, threads=1).pool.page_bytes
    weights = (llama_artifact / artifact.WEIGHTS).stat().st_size
    taken = weights + RESERVED_BYTES + int(RESERVED_OF_WEIGHTS * weights)
    least = -(-min(LEAST_TOKENS, CONTEXT) // PAGE_TOKENS)
    monkeypatch.setattr(compiled_engine, "available_memory", lambda: taken + least * one_page)
    assert compiled_engine.load(llama_artifact, threads=1).total_tokens == least * PAGE_TOKENS
    monkeypatch.setattr(compiled_engine, "available_memory", lambda: taken + least * one_page - 1)
    with pytest.raises(LoadError, match=r"too little for .* tokens; raise the memory size"):
        compiled_engine.load(llama_artifact, threads=1)


def test_a_cold_start_imports_neither_torch_nor_transformers(llama_artifact: Path) -> None:
    code = """
import sys, model_loader, numpy as np
from generation.params import GenerationParams
from tests.generating import generate
model = model_loader.get_model()
prompt = model.tokenizer.encode("the quick")
chunks = list(generate(model.engine, model.tokenizer, prompt, GenerationParams(max_tokens=5)))
assert chunks[-1].completion_tokens == 5, chunks
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "transformers", "accelerate", "compiler"})
assert model.engine.name == "compiled" and not loaded, loaded
assert "libtorch" not in open("/proc/self/maps").read()
"""
    environment = {**os.environ, "MODEL_DIR": str(llama_artifact), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_are_mapped_shared_and_never_written(engine: CompiledEngine) -> None:
    run(engine, random_ids(100), engine.new_cache())
    maps = re.findall(r"\S+ (\S{4}) .*weights\.bin", Path("/proc/self/maps").read_text())
    assert maps
    assert set(maps) == {"r--s"}


def edit_manifest(directory: Path, **changes: Any) -> None:
    path = directory / artifact.MANIFEST
    content = {**json.loads(path.read_text()), **changes}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": artifact.digest(content)}))


def test_a_truncated_file_is_found_at_every_start(broken: Path) -> None:
    weights = broken / artifact.WEIGHTS
    os.truncate(weights, weights.stat().st_size - 1)
    with pytest.raises(LoadError, match=r"weights.bin has \d+ bytes instead of"):
        compiled_engine.load(broken, threads=1)


@pytest.mark.parametrize("name", [artifact.WEIGHTS, f"{LEVELS[0]}/model.so", "tokenizer.bin"])
def test_a_flipped_bit_is_found_when_asked_for(broken: Path, name: str) -> None:
    path = broken / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LoadError, match=r"is damaged"):
        compiled_engine.load(broken, threads=1, verify=True)
    command = [sys.executable, "-m", "compiler", "--verify", str(broken)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"compiler: .* is damaged .*\n", done.stderr)


def test_an_intact_artifact_verifies(llama_artifact: Path) -> None:
    assert compiled_engine.load(llama_artifact, threads=1, verify=True).name == "compiled"


def test_a_missing_library_is_named(broken: Path) -> None:
    (broken / LEVELS[0] / "model.so").unlink()
    with pytest.raises(LoadError, match=r"model.so is missing"):
        compiled_engine.load(broken, threads=1)


def test_a_library_that_is_none_is_refused(broken: Path) -> None:
    library = broken / LEVELS[0] / "engine.so"
    library.write_bytes(b"\0" * library.stat().st_size)
    files = json.loads((broken / artifact.MANIFEST).read_text())["files"]
    edit_manifest(broken, files={**files, f"{LEVELS[0]}/engine.so": package.file_entry(library)})
    with pytest.raises(LoadError, match=r"engine.so cannot be loaded"):
        compiled_engine.load(broken, threads=1, level=LEVELS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": artifact.FORMAT + 1}, "has a format that is not"),
        ({"levels": []}, "names no weights or no code"),
        ({"levels": ["riscv64"]}, "cannot run on this"),
        ({"vocab_size": 0}, "is not the manifest"),
        ({"constants": [["x", 64, 2**50]]}, "places weights outside"),
        ({"constants": [["x", 1, 2]]}, "places weights outside"),
        ({"files": {}}, "names no weights or no code"),
        ({"cache": 3}, "is not the manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(broken: Path, changes: dict[str, Any], message: str) -> None:
    edit_manifest(broken, **changes)
    with pytest.raises(LoadError, match=message):
        compiled_engine.load(broken, threads=1)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", f'{{"format": {artifact.FORMAT}}}'])
def test_a_manifest_that_is_none_is_refused(broken: Path, content: str) -> None:
    (broken / artifact.MANIFEST).write_text(content)
    with pytest.raises(LoadError, match="is not the manifest of a compiled model"):
        compiled_engine.load(broken, threads=1)


def test_the_best_level_the_cpu_has_is_chosen() -> None:
    if "x86-64-v3" not in cpu_levels.levels_here():
        pytest.skip("levels of x86-64")
    levels = ["x86-64-v3", "x86-64-v4"]
    v3, v4 = cpu_levels.LEVEL_FLAGS["x86-64-v3"], cpu_levels.LEVEL_FLAGS["x86-64-v4"]
    assert cpu_levels.choose_level(levels, v4) == "x86-64-v4"
    assert cpu_levels.choose_level(levels, v4 - {"avx512_vnni"}) == "x86-64-v3"
    assert cpu_levels.choose_level(levels, v4, wanted="x86-64-v3") == "x86-64-v3"
    with pytest.raises(LoadError, match=r"levels x86-64-v4 cannot run on this .* CPU"):
        cpu_levels.choose_level(["x86-64-v4"], v3)
    with pytest.raises(LoadError, match=r"level x86-64-v4 cannot run"):
        cpu_levels.choose_level(levels, v3, wanted="x86-64-v4")


def test_graviton2_has_what_the_aarch64_level_needs() -> None:
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs"
    assert cpu_levels.LEVEL_FLAGS["aarch64"] <= set(features.split())


def test_only_the_level_asked_for_decides_the_instructions(llama_artifact: Path) -> None:
    if "x86-64-v3" not in cpu_levels.levels_here() or not shutil.which("objdump"):
        pytest.skip("levels of x86-64, read with objdump")
    for library in (llama_artifact / "x86-64-v3").glob("*.so"):
        listing = subprocess.run(["objdump", "-d", str(library)], capture_output=True, text=True, check=True).stdout
        assert "%ymm" in listing
        assert "%zmm" not in listing


def test_libraries_need_the_c_and_the_cpp_library_alone(llama_artifact: Path) -> None:
    if not shutil.which("objdump"):
        pytest.skip("read with objdump")
    needed = set()
    for library in llama_artifact.glob("*/*.so"):
        headers = subprocess.run(["objdump", "-p", str(library)], capture_output=True, text=True, check=True).stdout
        needed |= set(re.findall(r"NEEDED +(\S+)", headers))
    runtime = r"\$ORIGIN/engine\.so|ld-linux\S+|lib(c|dl|gcc_s|m|mvec|pthread|stdc\+\+)\.so\.\d+"
    assert "libc.so.6" in needed
    assert not {name for name in needed if not re.fullmatch(runtime, name)}


def test_a_graph_calls_the_kernels_beside_it_whatever_the_process_opened_before(
    llama_artifact: Path, broken: Path, tmp_path: Path
) -> None:
    opened = [(folder, level) for folder in (llama_artifact, broken) for level in reversed(LEVELS)]
    code = f"""
from pathlib import Path
import torch
from engines import compiled_engine
for folder, level in {[(str(folder), level) for folder, level in opened]}:
    compiled_engine.load(Path(folder), threads=1, level=level)
"""
    told = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "told"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **told}, check=True)
    (lines,) = (path.read_text() for path in tmp_path.glob("told.*"))
    bound = set(re.findall(r"binding file (\S+)/model\.so \[\d+\] to (\S+)/(?:engine\.so|lib(?:gomp|torch)\S*)", lines))
    assert bound == {(f"{folder}/{level}", f"{folder}/{level}") for folder, level in opened}


def test_a_compilation_that_is_killed_leaves_no_artifact(llama_directory: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from compiler import build, package
package.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
build.codegen.build_runtime = build.codegen.build_graph = lambda *_: None
build.build(Path({str(llama_directory)!r}), Path({str(tmp_path / "artifact")!r}), "none")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "artifact").exists()
    for leftover in tmp_path.iterdir():
        with pytest.raises(LoadError):
            compiled_engine.load(leftover, threads=1)


def test_a_directory_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(CompileError, match="is not a compiled model"), package.staging(tmp_path):
        pass
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What passes for an artifact, to be replaced."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / artifact.MANIFEST).write_text("old")
    return tmp_path / "old"


def test_a_link_to_an_artifact_stays_a_link(tmp_path: Path, old: Path) -> None:
    (tmp_path / "link").symlink_to(old)
    with package.staging(tmp_path / "link") as staged:
        (staged / artifact.MANIFEST).write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"link", "old"}
    assert ((tmp_path / "link").is_symlink(), (old / artifact.MANIFEST).read_text()) == (True, "new")


def test_an_artifact_outlives_an_interruption_while_it_is_replaced(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if (source / "new").exists():
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), package.staging(old) as staged:
        (staged / "new").touch()
    assert list(tmp_path.iterdir()) == [old]
    assert (old / artifact.MANIFEST).read_text() == "old"
