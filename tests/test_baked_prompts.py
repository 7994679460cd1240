"""Prompts that were read when the model was compiled: their pages give the bits that reading them gives."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.answers import Answer
from api.routes import readiness
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from engines import artifact, compiled_engine, cpu_levels
from engines.base import PAGE_TOKENS, KVCache, Logits, Step, TokenIds
from engines.compiled_engine import CompiledEngine
from engines.errors import LoadError
from engines.prompts import HEADER_BYTES, file_name, header
from generation.tokenizer import Tokenizer
from model_loader import load_model
from settings import ROOT, Settings
from tests.baking import LEVEL, bake
from tests.deterministic_engine import CHAT_TEMPLATE

INSTRUCTIONS = "the quick brown fox answers in one word, and the lazy dog asks. " * 4
"""Some hundred tokens."""


@pytest.fixture(scope="module", params=["none", "int8"])
def plain(request: pytest.FixtureRequest, llama_directory: Path, compiled: Callable[..., Path]) -> Path:
    """An artifact without prompts."""
    return compiled(llama_directory, request.param)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "instructions.txt"
    path.write_text(INSTRUCTIONS)
    return path


@pytest.fixture
def baked(plain: Path, text: Path, tmp_path: Path) -> Path:
    """The artifact with one prompt."""
    return bake(plain, tmp_path / "baked", text)


def load(directory: Path, *, verify: bool = False) -> CompiledEngine:
    return compiled_engine.load(directory, threads=2, verify=verify)


def only(engine: CompiledEngine) -> tuple[TokenIds, KVCache]:
    ((ids, cache),) = engine.prefixes
    return ids, cache


def go_on(engine: CompiledEngine, cache: KVCache, ids: TokenIds) -> Logits:
    """Logits `[S, V]` after each of `ids`."""
    (logits,) = engine.forward([Step(ids, cache, len(ids))])
    return logits


def test_a_prompt_goes_on_as_if_it_had_just_been_read(plain: Path, baked: Path) -> None:
    engine, other = load(baked), load(plain)
    ids, cache = only(engine)
    encoded = Tokenizer(baked).encode(INSTRUCTIONS)
    assert len(ids) == cache.length > 5 * PAGE_TOKENS
    assert encoded[: len(ids)].tolist() == ids.tolist()
    random = np.random.default_rng(0)
    for kept in (len(ids), len(ids) - 1, len(ids) - PAGE_TOKENS, PAGE_TOKENS + 1, 1):
        more = random.integers(1, engine.vocab_size, 40)
        fork, fresh = cache.fork(), other.new_cache()
        fork.truncate(kept)
        go_on(other, fresh, ids[:kept])
        np.testing.assert_array_equal(go_on(engine, fork, more), go_on(other, fresh, more))


def test_its_pages_are_never_written_and_take_nothing_of_the_budget(baked: Path) -> None:
    engine = load(baked)
    ids, cache = only(engine)
    before = (baked / file_name(LEVEL)).read_bytes()
    assert engine.free_tokens == engine.total_tokens
    forks = [cache.fork() for _ in range(3)]
    for i, fork in enumerate(forks):
        fork.truncate(len(ids) - 1 - i)
        go_on(engine, fork, ids[:20])
    assert engine.total_tokens - engine.free_tokens <= 3 * 3 * PAGE_TOKENS
    for fork in forks:
        fork.close()
    assert engine.free_tokens == engine.total_tokens
    assert (baked / file_name(LEVEL)).read_bytes() == before
    fresh = engine.new_cache()
    np.testing.assert_array_equal(go_on(engine, cache.fork(), ids[:1]), _after(engine, fresh, ids))


def test_its_pages_stay_whatever_becomes_of_the_cache_that_came_with_them(baked: Path) -> None:
    engine = load(baked)
    ids, cache = only(engine)
    cache.truncate(len(ids) - 1)
    cache.close()
    assert engine.free_tokens == engine.total_tokens
    fresh = engine.new_cache()
    go_on(engine, fresh, ids)
    assert not set(fresh.pages) & set(range(*address_range(baked / file_name(LEVEL))))


def address_range(path: Path) -> tuple[int, int]:
    """Where this process has mapped a file."""
    (line,) = (line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path)))
    begin, end = line.split()[0].split("-")
    return int(begin, 16), int(end, 16)


def _after(engine: CompiledEngine, cache: KVCache, ids: TokenIds) -> Logits:
    go_on(engine, cache, ids)
    return go_on(engine, cache, ids[:1])


CHAT = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": "what is a fox?"}]


@pytest.mark.parametrize("kind", ["completion", "chat"])
def test_a_request_says_the_same_with_it_as_without(plain: Path, text: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "chat.json").write_text(json.dumps(CHAT[:1]))
    asked: dict[str, Any] = {"max_tokens": 20, "temperature": 0.9, "seed": 7, "logprobs": 3}
    if kind == "completion":
        asked = {**asked, "prompt": f"{INSTRUCTIONS}and the fox says"}
    else:
        asked = {**asked, "messages": CHAT, "logprobs": True, "top_logprobs": 3}
    baked = bake(plain, tmp_path / "baked", text, tmp_path / "chat.json", chat_template=CHAT_TEMPLATE)
    unread = Path(shutil.copytree(plain, tmp_path / "unread"))
    (unread / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    answers = [answer(directory, asked) for directory in (baked, unread)]
    assert answers[0]["choices"] == answers[1]["choices"]
    found = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers]
    assert found == [len(load(baked).prefixes[kind == "chat"][0]), 0]


def answer(directory: Path, asked: dict[str, Any]) -> Answer:
    """The first answer of a process that has loaded the artifact."""
    service = Service(load_model(Settings(model_dir=str(directory))))
    request = validate(ChatRequest, asked) if "messages" in asked else validate(CompletionRequest, asked)
    return service.respond(service.prepare(request))


def test_what_a_request_must_begin_with_is_told_to_who_asks(baked: Path) -> None:
    model = load_model(Settings(model_dir=str(baked)))
    ids, _ = only(load(baked))
    (told,) = readiness(model)["baked_prompts"]
    assert (told["tokens"], told["characters"]) == (len(ids), len(model.tokenizer.decode(ids.tolist())))
    assert INSTRUCTIONS.startswith(told["begins"])
    assert INSTRUCTIONS[: told["characters"]].endswith(told["ends"])


def test_prompts_with_the_same_beginning_share_its_pages(plain: Path, tmp_path: Path) -> None:
    texts = {"long": INSTRUCTIONS, "other": INSTRUCTIONS[:70] + "jumps over the river " * 3, "same": INSTRUCTIONS}
    paths = []
    for name, content in texts.items():
        paths.append(tmp_path / f"{name}.txt")
        paths[-1].write_text(content)
    engine = load(bake(plain, tmp_path / "baked", *paths))
    (long_ids, long), (other_ids, other) = engine.prefixes
    shared = int((np.array(long_ids[: len(other_ids)]) == np.array(other_ids)).argmin()) // PAGE_TOKENS
    assert shared > 0
    assert long.pages[:shared] == other.pages[:shared]
    distinct = set(long.pages) | set(other.pages)
    assert len(distinct) == len(long.pages) + len(other.pages) - shared
    size = (tmp_path / "baked" / file_name(LEVEL)).stat().st_size
    assert size == HEADER_BYTES + len(distinct) * artifact.read(plain).page_bytes
    for ids, cache in engine.prefixes:
        np.testing.assert_array_equal(go_on(engine, cache.fork(), ids[:1]), _after(engine, engine.new_cache(), ids))


def test_code_of_a_level_that_has_not_read_the_prompts_is_not_chosen(
    llama_artifact: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = cpu_levels.levels_here()[0]
    if best == LEVEL:
        pytest.skip("this CPU has the best level of its architecture")
    baked = bake(llama_artifact, tmp_path / "baked", text)
    monkeypatch.setattr(cpu_levels, "cpu_flags", lambda: cpu_levels.LEVEL_FLAGS[best])
    assert cpu_levels.choose_level(artifact.read(baked).levels, cpu_levels.cpu_flags()) == best
    assert load(baked).level == LEVEL


def refusal(directory: Path, *, verify: bool = False) -> str:
    with pytest.raises(LoadError) as refused:
        load(directory, verify=verify)
    return str(refused.value)


def test_altered_pages_are_found_when_the_files_are_verified(baked: Path) -> None:
    path = baked / file_name(LEVEL)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 1000] ^= 1
    path.write_bytes(content)
    assert f"{path.name} is damaged (its sha256 is wrong)" in refusal(baked, verify=True)
    assert len(load(baked).prefixes) == 1


def test_pages_of_another_revision_are_refused_at_every_start(
    plain: Path, baked: Path, text: Path, tmp_path: Path
) -> None:
    revised = Path(shutil.copytree(plain, tmp_path / "revised"))
    manifest = json.loads((plain / artifact.MANIFEST).read_bytes())
    sign(revised, {**manifest, "revision": "another"})
    other = bake(revised, tmp_path / "other", text)
    shutil.copyfile(other / file_name(LEVEL), baked / file_name(LEVEL))
    assert f"{file_name(LEVEL)} was made with another model, tokenizer or prompt" in refusal(baked)


def sign(directory: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest that is right by its own checksum."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    (directory / artifact.MANIFEST).write_text(json.dumps({**content, "sha256": artifact.digest(content)}))


@pytest.mark.parametrize("size", [0, HEADER_BYTES, -1])
def test_a_file_of_pages_that_is_cut_short_or_gone_is_refused(baked: Path, size: int) -> None:
    path = baked / file_name(LEVEL)
    os.truncate(path, size % path.stat().st_size)
    assert f"{path.name} has {path.stat().st_size} bytes instead of" in refusal(baked)
    path.unlink()
    assert f"{path.name} is missing" in refusal(baked)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("tokens", [[1] * 15]),
        ("tokens", [[]]),
        ("tokens", [[1] * 16]),
        ("tokens", [[99_999] * 16]),
        ("tokens", []),
        ("levels", []),
        ("levels", ["x86-64-v5"]),
    ],
)
def test_a_manifest_with_prompts_that_cannot_be_is_refused(baked: Path, entry: str, value: list[Any]) -> None:
    manifest = json.loads((baked / artifact.MANIFEST).read_bytes())
    del manifest["sha256"]
    manifest["prompts"][entry] = value
    sign(baked, manifest)
    with (baked / file_name(LEVEL)).open("r+b") as file:
        file.write(header(artifact.prompt_stamp(manifest)))
    assert refusal(baked).endswith(f"; {artifact.RECOMPILE}.")


READER = """
import sys
from collections.abc import Callable
from pathlib import Path
import numpy as np
from engines import compiled_engine
from engines.base import Step

engine = compiled_engine.load(Path(sys.argv[1]), threads=1)
((ids, cache),) = engine.prefixes
engine.forward([Step(np.arange(3), cache.fork())])
print("read", flush=True)
sys.stdin.read()
"""
"""Uses an artifact's prompt, then stays."""


def test_eight_processes_share_one_copy(baked: Path) -> None:
    path = baked / file_name(LEVEL)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(baked)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "read\n"
        held = [mapped(reader.pid, path) for reader in readers]
    finally:
        for reader in readers:
            reader.communicate()
    pages = path.stat().st_size - HEADER_BYTES
    assert all(size["Rss"] >= pages and size["Private_Dirty"] == 0 for size in held)
    assert sum(size["Pss"] for size in held) <= path.stat().st_size + 4096 * len(held)


def mapped(pid: int, path: Path) -> dict[str, int]:
    """Bytes that a process holds of a mapped file, by smaps' names."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    (block,) = re.findall(rf"^.*{re.escape(str(path))}\n((?:\w+:.*\n)+)", smaps, flags=re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", block)}
