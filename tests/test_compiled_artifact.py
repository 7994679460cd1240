"""Artifacts that are altered: whatever is done to the manifest or to the code, the load fails with one sentence.

Manifests are loaded in another process, so that one which ended it by a signal would be seen as that.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from compiler import package
from engines import artifact, compiled_engine, cpu_levels
from engines.base import Step, token_ids
from engines.errors import LoadError
from tests.baking import bake

ROOT = Path(__file__).parents[1]
LEVEL = cpu_levels.choose_level(cpu_levels.levels_here(), cpu_levels.cpu_flags())
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 64, 2**31, 2**63, 10**30, 0.5, 1e308),
    *("", "x", "../x", "\0", "\ud800", [], {}, [[1]]),
)
"""What each entry of a manifest is replaced by."""

LOADER = """
import json, sys
from pathlib import Path
import numpy as np
from compiler import package
from engines import artifact, compiled_engine, cpu_levels
from engines.base import Step
from engines.errors import LoadError

directory = Path(sys.argv[1])

def logits(level=None):
    engine = compiled_engine.load(directory, threads=1, level=level)
    cache = engine.prefixes[0][1].fork() if engine.prefixes else engine.new_cache()
    (rows,) = engine.forward([Step(np.arange(20), cache, last=20)])
    return engine.level, rows.tobytes()

flags = cpu_levels.cpu_flags()
here = [level for level in artifact.read(directory).levels if cpu_levels.LEVEL_FLAGS[level] <= flags]
expected = {logits(level) for level in here}  # without the name of the best level, the next one is taken
for line in sys.stdin:
    (directory / artifact.MANIFEST).write_bytes(line.encode())
    try:
        print("same" if logits() in expected else "OTHER LOGITS", flush=True)
    except LoadError as error:
        assert str(error).endswith("."), error
        print("refused", flush=True)
"""
"""Loads an artifact once for each manifest, a line of standard input, and says what came of it."""


@pytest.fixture
def altered(llama_artifact: Path, tmp_path: Path) -> Path:
    """A copy of an artifact to alter."""
    return Path(shutil.copytree(llama_artifact, tmp_path / "artifact"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every entry of a JSON value; of long lists, to three items."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(i, value[i]) for i in sorted({0, len(value) // 2, len(value) - 1}) if value]
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def alterations(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The manifest with one entry deleted or replaced, for every entry and each of VALUES."""
    for path in places(manifest):
        for value in (*VALUES, ...):
            copy = deepcopy(manifest)
            parent: Any = copy
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            elif parent[path[-1]] == value and type(parent[path[-1]]) is type(value):
                continue
            else:
                parent[path[-1]] = value
            yield copy


def load_each(directory: Path, manifests: list[str]) -> list[str]:
    """What came of loading the artifact with each manifest: `refused`, `same` (a level's logits) or `OTHER LOGITS`."""
    command = [sys.executable, "-c", LOADER, str(directory)]
    text = "".join(f"{manifest}\n" for manifest in manifests)
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    outcomes = done.stdout.splitlines()
    tried = manifests[len(outcomes)][:2000] if len(outcomes) < len(manifests) else ""
    assert done.returncode == 0, f"exit status {done.returncode} at {tried}\n{done.stderr[-2000:]}"
    return outcomes


def test_every_altered_manifest_is_refused(altered: Path) -> None:
    manifest = json.loads((altered / artifact.MANIFEST).read_bytes())
    altered_manifests = [json.dumps(copy) for copy in alterations(manifest)]
    assert len(altered_manifests) > 500
    assert set(load_each(altered, altered_manifests)) == {"refused"}


@pytest.mark.parametrize("prompt", [None, "the quick brown fox " * 4])
def test_a_manifest_that_is_altered_and_signed_again_never_reaches_native_code(
    llama_artifact: Path, altered: Path, tmp_path: Path, prompt: str | None
) -> None:
    if prompt is not None:
        (tmp_path / "prompt.txt").write_text(prompt)
        altered = bake(llama_artifact, tmp_path / "baked", tmp_path / "prompt.txt")
    manifest = json.loads((altered / artifact.MANIFEST).read_bytes())
    del manifest["sha256"]
    copies = list(alterations(manifest))
    outcomes = load_each(altered, [json.dumps({**copy, "sha256": artifact.digest(copy)}) for copy in copies])
    assert len(outcomes) > 500
    for copy, outcome in zip(copies, outcomes, strict=True):
        assert outcome in ("refused", "same")
        assert outcome == "refused" or all(copy[name] == manifest[name] for name in artifact.NUMBERS)


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"format": ' + b"9" * 5000 + b"}", b"[[]]", b'"format"'],
)
def test_a_manifest_that_cannot_be_read_is_refused(altered: Path, content: bytes) -> None:
    (altered / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(LoadError, match="is not the manifest of a compiled model"):
        artifact.read(altered)


def test_any_flipped_bit_of_the_code_is_found_before_it_runs(altered: Path) -> None:
    dice = random.Random(0)
    for path in sorted((altered / LEVEL).iterdir()):
        intact = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(intact)
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises(LoadError, match=rf"{path.name} is damaged"):
                compiled_engine.load(altered, threads=1)
        path.write_bytes(intact)
    assert compiled_engine.load(altered, threads=1).level == LEVEL


def test_code_of_another_level_may_be_damaged(altered: Path) -> None:
    others = [level for level in cpu_levels.levels_here() if level != LEVEL]
    if not others:
        pytest.skip("an architecture of one level")
    library = altered / others[0] / "engine.so"
    library.write_bytes(b"\0" * library.stat().st_size)
    assert compiled_engine.load(altered, threads=1).level == LEVEL


def test_code_that_the_manifest_does_not_name_is_refused(altered: Path) -> None:
    (altered / LEVEL / "more.so").write_bytes(b"")
    with pytest.raises(LoadError, match=r"more.so is damaged"):
        compiled_engine.load(altered, threads=1)


def test_who_has_loaded_an_artifact_keeps_it_when_another_takes_its_place(altered: Path) -> None:
    engine = compiled_engine.load(altered, threads=1)

    def logits() -> bytes:
        (rows,) = engine.forward([Step(token_ids(range(20)), engine.new_cache(), last=1)])
        return bytes(rows.tobytes())

    expected = logits()
    with package.staging(altered) as staged:
        shutil.copytree(altered, staged, dirs_exist_ok=True)
        weights = staged / artifact.WEIGHTS
        weights.write_bytes(bytes(weights.stat().st_size))
    assert not any((altered / artifact.WEIGHTS).read_bytes())
    assert logits() == expected
